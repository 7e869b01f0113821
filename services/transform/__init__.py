"""transform: build the training-ready tree `<dataset>/<split>/class_XX/<file>` from the extracted files."""
