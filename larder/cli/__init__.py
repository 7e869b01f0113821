"""The command `larder`, the entry point of a checkout. It needs only Python 3.9 and the standard library.

main        parse the command line, run a command, map failures to exit codes
commands    the table of commands, by group
pipelines   the stages of each command, as data
settings    every setting, resolved in one place: command line, environment, .env, default
dotenv      read .env by compose's rules
runner      the interface of the two runners, and the choice between them
compose     run stages as containers
host        run stages as processes in .venv/
local_store tell the user's store from larder's own, and create its keys
inspector   inspect the machine without changing it
inventory   list artifacts by their manifests, on volumes and in the store; staleness: which are out of date
checks      the checks of `doctor`
installed   what `uninstall` removes
completion  completion scripts for shells
process     run the runner's calls: signals, exit codes, dry runs
"""
