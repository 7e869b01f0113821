# What the README shows. Every target is a command of `larder`, which decides everything; `make` alone lists them.
# Settings are handed through: make etl-local LARDER_SOURCE=photos.zip
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Make would expand $(...) in the variables it exports. larder reads what was typed from MAKEFLAGS instead.
unexport $(filter-out =%,$(subst =, =,$(MAKEOVERRIDES)))
export LARDER_FRONT_DOOR := make

COMMANDS := help demo etl-local etl-load etl-wds etl-lit index verify \
    bench train jupyter jupyter-token jupyter-url jupyter-logs jupyter-down \
    s3-up s3-check s3-bucket s3-down s3-keys mount unmount ray-up ray-down \
    status doctor uninstall clean-local clean clean-wds clean-lit clean-s3 \
    build build-extract build-transform build-load build-index build-shard build-optimize build-verify build-s3 build-mount \
    build-bench build-jupyter venv test test-unit test-integration test-containers test-openstack test-python lint docs \
    benchmarks lock pin-images

.PHONY: $(COMMANDS)
$(COMMANDS):
	@python3 -m larder $@

# A target that isn't there: larder suggests the nearest. The quotes keep its name from the shell, and so does dropping what follows a newline.
.DEFAULT:
	@python3 -m larder '$(subst ','\'',$(firstword $@))'
