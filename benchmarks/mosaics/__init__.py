"""What slides made of labelled tiles consist of: the tiles and their stain, what a slide shows, its file, its cues."""
