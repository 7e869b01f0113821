"""transform: turns what was extracted into the training-ready tree `Food-11/<split>/class_XX/<file>`."""
