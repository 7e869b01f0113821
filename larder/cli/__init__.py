"""The command `larder`: the front door of a checkout. It runs on Python 3.9 with the standard library alone.

main        parse the command line, run a command, map failures to exit codes
commands    the table of commands, by group
pipelines   the stages of each command, as data
settings    every setting, resolved in one place: command line, environment, .env, default
dotenv      reads .env by compose's rules
runner      the interface of the two runners, and which one is used
compose     the stages as containers
host        the stages as processes in .venv/
store       whose store it is, and the keys of our own
survey      looks at what is there, and changes nothing
inventory   artifacts by their manifests, on volumes and in the store; staleness: which are out of date
checks      what `doctor` checks
belongings  what `uninstall` removes
completion  scripts for shells
process     runs what a runner prints: signals, exit codes, dry runs
"""
