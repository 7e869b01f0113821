# Each target is a command of `larder`, which makes all decisions; `make` alone lists them.
# Settings are passed on: make etl-local LARDER_SOURCE=photos.zip
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Make would expand $(...) in the variables it exports. larder reads what was typed from MAKEFLAGS instead.
unexport $(filter-out =%,$(subst =, =,$(MAKEOVERRIDES)))
export LARDER_FRONT_DOOR := make

COMMANDS := help demo etl-local etl-load etl-wds etl-lit index verify \
    bench train compare peers report jupyter jupyter-token jupyter-url jupyter-logs jupyter-down \
    s3-up s3-check s3-bucket s3-down s3-keys mount unmount ray-up ray-down \
    status doctor uninstall clean-local clean clean-wds clean-lit clean-s3 \
    build build-extract build-transform build-load build-index build-shard build-optimize build-verify build-s3 build-mount \
    build-bench build-jupyter venv test test-unit test-integration test-containers test-openstack test-python lint docs docs-site \
    benchmarks lock pin-images

.PHONY: $(COMMANDS)
$(COMMANDS):
	@python3 -m larder $@

# Unknown target: larder suggests the nearest one. Quotes protect its name from the shell, and text after a newline is dropped.
.DEFAULT:
	@python3 -m larder '$(subst ','\'',$(firstword $@))'
