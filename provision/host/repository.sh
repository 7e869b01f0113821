#!/usr/bin/env bash
# Clone a git repository, or update it. Local changes are never lost; tags that also exist at the origin are updated.
set -euo pipefail
. "$(dirname "$0")/common.sh"

usage() {
    cat <<'X'
repository.sh --url ADDRESS|- [--revision BRANCH|TAG|COMMIT] [--into FOLDER]

  --url        the repository's address; - reads it from standard input, which hides the token of
               https://USER:TOKEN@HOST/…: it is used for this run only, and never stored
  --revision   default: the repository's default branch, or the branch that is checked out
  --into       default: a folder in the home directory, named like the repository
Run it as the repository's owner, not as root.
X
}

main() {
    local url='' revision='' into='' name git_options=()
    [[ " $* " == *" --help "* ]] && { usage; exit; }
    while (($#)); do
        (($# > 1)) || wrong_usage "$1 lacks its value"
        case $1 in --url) url=$2 ;; --revision) revision=$2 ;; --into) into=$2 ;; *) wrong_usage "unknown option $1" ;; esac
        shift 2
    done
    [[ $url != - ]] || read -r url || true # the line may lack its end
    [[ $url ]] || wrong_usage "--url is missing"
    [[ $revision != -* ]] || wrong_usage "--revision $revision is no revision"
    command -v git >/dev/null || fail 2 "git isn't installed" "sudo apt-get install git (tools.sh git), then run this again"
    name=${url%/} name=${name##*/} name=${name##*:}
    into=${into:-$HOME/${name%.git}}
    export GIT_TERMINAL_PROMPT=0
    set_secret_aside
    if [[ -e $into ]]; then
        check_folder
        update
    else
        clone
    fi
}

# Remove user and token from the address, and pass them to git in a temporary file.
set_secret_aside() {
    local user
    [[ $url =~ ^(https?://)([^/@]+)@(.*)$ ]] || return 0
    url=${BASH_REMATCH[1]}${BASH_REMATCH[3]} user=${BASH_REMATCH[2]}
    [[ $user == *:* ]] || user+=: # a token alone, without a password
    secret=$(mktemp)
    trap 'rm -f "$secret"' EXIT
    printf '%s%s@%s\n' "${BASH_REMATCH[1]}" "$user" "${BASH_REMATCH[3]%%/*}" >"$secret"
    git_options=(-c credential.helper= -c "credential.helper=store --file=$secret")
}

# An interrupted clone leaves a folder with another name, which the next run replaces.
clone() {
    rm -rf -- "$into.larder-part"
    git "${git_options[@]}" clone --quiet -- "$url" "$into.larder-part" || unreachable
    if [[ $revision ]]; then
        git -C "$into.larder-part" checkout --quiet "$revision" -- || unknown_revision
    fi
    mv -- "$into.larder-part" "$into"
    say "cloned $url to $into: $(where)"
}

check_folder() {
    local origin
    origin=$(git -C "$into" config --get remote.origin.url 2>/dev/null) ||
        fail 3 "$into exists and isn't a clone" "move it away, or choose another folder (--into)"
    origin=$(sed -E 's|^(https?://)[^/@]+@|\1|' <<<"$origin") # a clone of the user's own may contain a token there
    [[ $origin == "$url" ]] ||
        fail 3 "$into is a clone of $origin, not of $url" "move it away, or choose another folder (--into)"
}

update() {
    local changes
    # With `--tags`, a tag that was moved at the origin makes git fail; `--force` would overwrite more than tags. Where
    # fetch.prune is set, this refspec would delete tags that the origin doesn't have.
    git "${git_options[@]}" -C "$into" -c remote.origin.fetch='+refs/tags/*:refs/tags/*' \
        fetch --quiet --no-prune origin || unreachable
    changes=$(git -C "$into" status --porcelain --untracked-files=no)
    if [[ $changes ]]; then
        say "left $into as it is, $(where): it has changes that aren't committed"
        return
    fi
    [[ ! $revision ]] || switch_to_revision
    if ! git -C "$into" rev-parse --quiet --verify '@{upstream}' >/dev/null 2>&1; then # a tag or a commit
        say "found $into at $(where)"
    elif git -C "$into" merge --quiet --ff-only '@{upstream}' >/dev/null 2>&1; then
        say "found or brought $into up to date: $(where)"
    else
        say "left $into as it is, $(where): it has commits that the origin doesn't have"
    fi
}

switch_to_revision() {
    git -C "$into" checkout --quiet "$revision" -- || unknown_revision
}

where() { git -C "$into" log -1 --format='%h %s'; }

unreachable() { fail 5 "git can't read $url" "check the address, and that the server may reach it"; }

unknown_revision() {
    fail 3 "$url has no revision $revision, or it can't be checked out" "git ls-remote $url lists its revisions"
}

main "$@"
