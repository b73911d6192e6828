"""What a person looks at: the picture of a slide's attention, and its outlines for QuPath."""
