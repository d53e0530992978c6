"""Linear alignment of a pair: from any starting pose, by rigid, similarity or affine maps."""
