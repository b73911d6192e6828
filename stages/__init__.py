"""What happens to a slide, one file a step: geometry, slides, tissue, attention, sampling, patches, prediction."""
