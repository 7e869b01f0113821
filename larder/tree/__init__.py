"""What becomes of files: which are samples, of which split and class, and whether they are fit to be one.

`recipes/` has a module for each way of finding that, and `recipes.auto` finds the recipe. `survey` shows what lies
where, `names` tells litter and images, `splits` is LARDER_SPLITS and LARDER_SPLIT, `lists` and `listing` are for
samples that a data set's own lists name. `check` looks at an image. `left_out` and `summary` are what is said at the
end.
"""
