"""transform: turns what was extracted into the training-ready tree `<data set>/<split>/class_XX/<file>`."""
