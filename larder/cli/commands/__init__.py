"""The commands: one module per group, and the table of all of them."""

from __future__ import annotations

from larder.cli.command import Command
from larder.cli.commands import clean, completion, develop, doctor, jupyter, mount, pipelines, ray, report, s3
from larder.cli.commands.status import status
from larder.cli.commands.uninstall import uninstall
from larder.cli.pipelines import STAGES

_DATA, _MEASURE, _STORE = "Data", "Measure, look, train", "Store"
_CLUSTER, _KEEP, _DEVELOP = "Clusters and clouds", "See and clean up", "Develop"
_VOLUMES = ("LARDER_DATA_VOLUME", "LARDER_WDS_VOLUME", "LARDER_LIT_VOLUME")

COMMANDS: tuple[Command, ...] = (
    Command("demo", _DATA, "run generated images through the pipeline, to a measured table", pipelines.demo,
            ("extract", "transform", "bench"), ("ARM",)),
    Command("etl-local", _DATA, "bring LARDER_SOURCE into the data volume as a training-ready tree",
            pipelines.pipeline("etl-local"), ("extract", "transform"), _VOLUMES[:1]),
    Command("etl-load", _DATA, "upload the tree, one object per image, and verify every object",
            pipelines.pipeline("etl-load"), ("load",), _VOLUMES[:1]),
    Command("etl-wds", _DATA, "pack the tree as WebDataset shards, and upload them",
            pipelines.pipeline("etl-wds"), ("shard", "load"), _VOLUMES[:2]),
    Command("etl-lit", _DATA, "pack the tree as LitData chunks, and upload them",
            pipelines.pipeline("etl-lit"), ("optimize", "load"), (_VOLUMES[0], _VOLUMES[2])),
    Command("index", _DATA, "check, hash and index LARDER_SOURCE in place, in a store, as input of etl-wds and etl-lit",
            pipelines.pipeline("index"), ("index",), _VOLUMES[:1]),
    Command("verify", _DATA, "check the chain from archive to object, hash by hash", pipelines.verify,
            ("verify",), _VOLUMES),
    Command("bench", _MEASURE, "measure ARM; records go to results/", pipelines.bench, ("bench",), ("ARM",)),
    Command("compare", _MEASURE, "measure all arms that the data allow, in turns, and show which keeps a GPU busy",
            pipelines.compare, ("bench",), words="[SHARDS]", works_installed=True),
    Command("report", _MEASURE, "render a comparison as a page and as tables; show what changed since another",
            report.report, settings=("RECORD", "AGAINST", "LARDER_RESULTS"), words="[RECORD]", works_installed=True),
    Command("train", _MEASURE, "train a small network through ARM: accuracy, and time spent waiting for data",
            pipelines.train, ("bench",), ("ARM",)),
    Command("jupyter", _MEASURE, "start JupyterLab beside the data, and print its address", jupyter.up,
            ("jupyter", "bench")),
    Command("jupyter-token", _MEASURE, "create the workspace and JupyterLab's token", jupyter.token, ("jupyter",),
            hidden=True),
    Command("jupyter-url", _MEASURE, "print JupyterLab's address, with its token", jupyter.url, ("jupyter",)),
    Command("jupyter-logs", _MEASURE, "print JupyterLab's log", jupyter.logs, ("jupyter",)),
    Command("jupyter-down", _MEASURE, "stop JupyterLab, and keep the workspace", jupyter.down, ("jupyter",)),
    Command("s3-up", _STORE, "start a store on this machine, and create its bucket", s3.up, ("s3",),
            ("LARDER_MINIO_PORT",)),
    Command("s3-check", _STORE, "diagnose the store: reach, keys, clock, bucket, writing, parts, ranges, speed",
            pipelines.pipeline("s3-check"), ("s3",)),
    Command("s3-bucket", _STORE, "create the bucket (BUCKET=name: another one)", s3.bucket, ("s3",), ("BUCKET",)),
    Command("s3-down", _STORE, "stop the store on this machine, and keep its data", s3.down, ("s3",)),
    Command("s3-keys", _STORE, "generate the keys of the store on this machine", s3.keys, hidden=True),
    Command("mount", _STORE, "mount the bucket as a read-only folder", mount.mount, ("mount",)),
    Command("unmount", _STORE, "unmount the bucket, also if its mount is dead", mount.unmount, ("mount",)),
    Command("ray-up", _CLUSTER, "start a Ray cluster for LARDER_RAY_STAGE", ray.up, (), ("LARDER_RAY_STAGE",)),
    Command("ray-down", _CLUSTER, "stop the Ray cluster", ray.down),
    Command("provision", _CLUSTER, "create and delete a VM, volumes and buckets in a cloud", develop.provision,
            words="..."),
    Command("status", _KEEP, "show volumes, store, mount, JupyterLab and records, and what is out of date",
            status, (), _VOLUMES),
    Command("doctor", _KEEP, "check engine, disk, memory, ports, FUSE, GPU, Python and .env", doctor.doctor,
            reports_bad_settings=True),
    Command("clean-local", _KEEP, "remove the data volume, after asking", clean.local, (), (*_VOLUMES[:1], "YES")),
    Command("clean", _KEEP, "remove the volumes of shards and chunks that the store has", clean.packs("wds", "lit"),
            ("load",), (*_VOLUMES[1:], "YES")),
    Command("clean-wds", _KEEP, "remove the volume of shards that the store has", clean.packs("wds"),
            ("load",), (_VOLUMES[1], "YES")),
    Command("clean-lit", _KEEP, "remove the volume of chunks that the store has", clean.packs("lit"),
            ("load",), (_VOLUMES[2], "YES")),
    Command("clean-s3", _KEEP, "remove the store on this machine, its data and keys, after asking", clean.s3,
            (), ("YES",)),
    Command("uninstall", _KEEP, "list everything that larder has created here, ask, and remove it",
            uninstall, (), ("YES",)),
    Command("completion", _DEVELOP, "print a script that completes commands, settings and flags in a shell",
            completion.completion, words="bash|zsh|fish", anywhere=True),
    Command("build", _DEVELOP, "build the images", develop.build, words="[STAGE...]"),
    *(Command(f"build-{stage}", _DEVELOP, f"build the image of {stage}", develop.build_one(stage), hidden=True)
      for stage in STAGES),
    Command("venv", _DEVELOP, "create .venv/ for the host runner and tests", develop.venv, words="[STAGE|PYTHON...]",
            settings=("TORCH_INDEX_URL", "TORCH_BACKEND")),
    Command("test", _DEVELOP, "run every tier of tests that this machine can run", develop.test,
            settings=("REQUIRE", "TEST_PROCESSES", "DIST", "PYTEST_ARGS", "TEST_PYTHON")),
    *(Command(f"test-{tier}", _DEVELOP, f"run the tests in tests/{tier}", develop.test_tier(tier),
              settings=("TEST_PROCESSES", "DIST", "PYTEST_ARGS")) for tier in develop.TIERS),
    Command("test-python", _DEVELOP, "run the tests that don't need torch with another Python (TEST_PYTHON)",
            develop.test_python, settings=("TEST_PYTHON", "TEST_PROCESSES", "DIST", "PYTEST_ARGS")),
    Command("lint", _DEVELOP, "run ruff and mypy, and check that generated docs are fresh", develop.lint),
    Command("docs", _DEVELOP, "write the generated docs", develop.docs),
    Command("benchmarks", _DEVELOP, "compare the speed of the stages with that of other tools", develop.benchmarks,
            words="[BENCHMARK...]"),
    Command("lock", _DEVELOP, "renew the lock file", develop.lock),
    Command("pin-images", _DEVELOP, "pin the images' base by its current digest",
            develop.pin_images),
)  # fmt: skip
BY_NAME = {command.name: command for command in COMMANDS}
