#!/usr/bin/env bash
# Inspect, prepare, mount, unmount and grow a block volume on this server. Never formats a disk that may hold data.
set -euo pipefail
ARGUMENTS="$*"
. "$(dirname "$0")/common.sh"

OUR_NAME=larder # name of the partition and label of the file system that this script creates
GIB=$((1 << 30)) ENDS_BYTES=$((16 << 20))
SAMPLES=512 SAMPLE_BYTES=65536

usage() {
    cat <<'X'
volume.sh COMMAND (--serial ID | --device PATH) [options]

  look      print as JSON what is on the disk; changes nothing
  uses      print as JSON how this server uses the disk, as a list (empty if unused); changes nothing
  prepare   give a blank disk a partition and ext4; leave a disk with a file system unchanged
  mount     prepare, then mount by UUID, now and at each boot (fstab, nofail); Docker then requires the mount
  unmount   undo `mount`: unmount, remove the line in fstab and Docker's requirement; refused while in use
  grow      extend partition and file system to the disk's size, also while it is mounted and in use

  --serial ID       the volume's id; disks show at least its first 20 characters as serial
  --device PATH     the disk by name
  --gib N           the size that the disk must have
  --mount DIR       default /mnt/block
  --blank           the volume was created blank and never formatted: allows formatting, if the disk is blank
  --owner UID:GID   owner of the folders workspace and docker-volumes in a new file system; default: the user of sudo
  --wait SECONDS    how long to wait for the disk or its new size; default 60 (look, uses and unmount: 0)
X
}

main() {
    command=${1:-} serial='' device='' gib='' mount=/mnt/block blank='' seconds=''
    owner=${SUDO_UID:-0}:${SUDO_GID:-0}
    [[ " $* " == *" --help "* ]] && { usage; exit; }
    shift || wrong_usage "no command"
    while (($#)); do
        case $1 in
            --blank) blank=yes && shift && continue ;;
            --serial | --device | --gib | --mount | --owner | --wait) ;;
            *) wrong_usage "unknown option $1" ;;
        esac
        (($# > 1)) || wrong_usage "$1 lacks its value"
        case $1 in
            --serial) serial=$2 ;; --device) device=$2 ;; --gib) gib=$2 ;; --mount) mount=$2 ;; --owner) owner=$2 ;; --wait) seconds=$2 ;;
        esac
        shift 2
    done
    check_options
    need_root
    take_turn
    case $command in
        look) look ;;
        uses) uses ;;
        prepare) prepare ;;
        mount) mount_volume ;;
        unmount) unmount_volume ;;
        grow) grow ;;
        *) wrong_usage "unknown command '$command'" ;;
    esac
}

check_options() {
    case $command in
        look | uses | unmount) seconds=${seconds:-0} ;;
        *) seconds=${seconds:-60} ;;
    esac
    [[ $serial || $device ]] || wrong_usage "neither --serial nor --device"
    [[ ! $serial || ! $device ]] || wrong_usage "both --serial and --device"
    [[ ! $serial || ${#serial} -ge 20 ]] || wrong_usage "--serial $serial is shorter than 20 characters"
    [[ ! $gib || $gib =~ ^[1-9][0-9]*$ ]] || wrong_usage "--gib $gib is no whole number of GiB"
    [[ $seconds =~ ^[0-9]+$ ]] || wrong_usage "--wait $seconds is no number of seconds"
    [[ $owner =~ ^[0-9]+:[0-9]+$ ]] || wrong_usage "--owner $owner is not UID:GID in numbers"
    [[ $mount =~ ^(/[A-Za-z0-9._-]+)+$ ]] || wrong_usage "--mount $mount is no absolute path of plain letters"
}

# --- finding the disk -------------------------------------------------------------------------------------------------

# Print every disk as "PATH SERIAL BYTES", with "-" for a missing serial.
disks() {
    local line
    while read -r line; do
        [[ $line =~ PATH=\"([^\"]*)\"\ SERIAL=\"([^\"]*)\"\ SIZE=\"([^\"]*)\"\ TYPE=\"disk\" ]] || continue
        printf '%s %s %s\n' "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]:--}" "${BASH_REMATCH[3]}"
    done < <(lsblk --pairs --bytes --nodeps --output PATH,SERIAL,SIZE,TYPE)
}

matching_disks() {
    local path shown _
    while read -r path shown _; do
        if [[ $serial == "$shown" || (${#shown} -ge 20 && $serial == "$shown"*) ]]; then printf '%s\n' "$path"; fi
    done < <(disks)
}

# Set `device`. Fail if the disk doesn't appear in time.
find_device() {
    local matches deadline=$((SECONDS + seconds))
    if [[ $device ]]; then
        [[ -b $device ]] || fail 3 "$device is no block device" "lsblk shows what there is"
        device=$(readlink -f "$device") # /dev/disk/by-id/…
        return
    fi
    while matches=$(matching_disks) && [[ ! $matches ]]; do
        ((SECONDS < deadline)) || return 1
        sleep 0.5
    done
    [[ $matches != *$'\n'* ]] || fail 3 "more than one disk has the serial ${serial:0:20}: ${matches//$'\n'/, }" \
        "detach the one that doesn't belong here"
    device=$matches
}

need_device() {
    find_device || fail 3 "after $seconds s there is no disk with the serial ${serial:0:20}; disks here: $(disk_list)" \
        "check that the volume is attached to this server; detach and attach it again if the cloud says so"
}

disk_list() { disks | while read -r path shown bytes; do printf '%s (serial %s, %s) ' "$path" "$shown" "$(words "$bytes")"; done; }

words() { numfmt --to=iec-i --suffix=B "$1"; }

check_size() {
    local bytes
    bytes=$(blockdev --getsize64 "$device")
    [[ ! $gib || $bytes -eq $((gib * GIB)) ]] || fail 3 \
        "$device has $bytes bytes ($(words "$bytes")), declared are $gib GiB ($((gib * GIB)) bytes); nothing was changed" \
        "correct the declared size, or grow the volume in the cloud and here (grow), or check that it is the right volume"
}

# --- what is on it ----------------------------------------------------------------------------------------------------

# Set state, place (the device with the file system, now or later), type, uuid, label, name, evidence. Only reads.
inspect() {
    state='' place=$device type='' uuid='' label='' evidence=()
    probe "$device"
    if is_half_written; then
        state=half-made
        evidence+=("$device: what an interrupted partitioning of ours has left, and zeros elsewhere")
    elif [[ $table ]]; then
        inspect_partitions
    elif [[ $type || ${#signatures[@]} -gt 0 ]]; then
        judge_file_system
    elif [[ $(list_partitions) || $(list_holders) ]]; then
        state=foreign
        evidence+=("$device: no signature, but the kernel knows parts of it: $(list_partitions) $(list_holders)")
    else
        judge_zeros blank
    fi
}

# Return whether the disk holds nothing but an unfinished table of `make_partition`. GPT has two headers and two lists of
# partitions (UEFI 2.10, 5.3): each must be empty or ours. The first sector, which is written last, must be empty. Only the
# partition has our name, so at least one list must exist. The sector before the last list is checked here, since
# `first_data` skips the same number of bytes at the end as at the beginning.
is_half_written() {
    local sector at
    [[ ! $(list_partitions) && ! $(list_holders) ]] || return 1
    sector=$(blockdev --getss "$device")
    perl -e '
        my ($path, $bytes, $sector, $name) = @ARGV;
        open(my $disk, "<:raw", $path) or die "$path: $!\n";
        sub at { sysseek($disk, $_[0], 0) && sysread($disk, my $block, $_[1]) == $_[1] or die "$path: $!\n"; $block }
        my $lists = 0;
        for (at(2 * $sector, 16384), at($bytes - $sector - 16384, 16384)) {
            next unless /[^\0]/;
            my ($type, $flags, $called, $rest) = unpack("a16 x32 a8 a72 a*", $_);
            $lists++;
            exit 1 if $type ne pack("H*", "af3dc60f838472478e793d69d8477de4") || ($flags . $rest) =~ /[^\0]/
                || $called ne pack("a72", join("", map { "$_\0" } split(//, $name)));
        }
        exit 1 if !$lists || (at(0, $sector) . at($bytes - 2 * $sector - 16384, $sector)) =~ /[^\0]/;
        for (at($sector, $sector), at($bytes - $sector, $sector)) {
            exit 1 if /[^\0]/ && !/^EFI PART.{84}\0*\z/s;
        }' "$device" "$(blockdev --getsize64 "$device")" "$sector" "$OUR_NAME" || return 1
    at=$(first_data "$device" $((2 * sector + 16384))) || exit 3 # an unreadable disk must not count as empty
    [[ ! $at ]]
}

# List what uses the device in the kernel: LVM, RAID, an encrypted disk.
list_holders() {
    local name
    name=$(basename "$(readlink -f "$device")")
    ls "/sys/class/block/$name/holders" 2>/dev/null || true
}

inspect_partitions() {
    local partitions=()
    mapfile -t partitions < <(partition_nodes)
    if ((${#partitions[@]} != 1)); then
        state=foreign
        evidence+=("$device: a partition table ($table) with ${#partitions[@]} partitions${partitions[*]:+: ${partitions[*]}}")
        return
    fi
    place=${partitions[0]}
    evidence+=("$device: a partition table ($table) with one partition")
    probe "$place"
    [[ ! $name ]] || evidence+=("$place: its name is '$name'")
    if [[ $type || $table || ${#signatures[@]} -gt 0 ]]; then
        judge_file_system
    elif [[ $name == "$OUR_NAME" ]]; then
        judge_zeros half-made
    else
        state=foreign
        evidence+=("$place: no signature, but the partition isn't of our making")
    fi
}

# After an interrupted partitioning, the kernel may not have read the table yet.
partition_nodes() {
    if [[ ! $(list_partitions) ]]; then
        partx --update "$device" 2>/dev/null || true # fails if the table has no partitions
        settle
    fi
    list_partitions | while read -r node; do
        for _ in {1..50}; do [[ ! -b $node ]] || break; sleep 0.1; done # /dev may lag
        printf '%s\n' "$node"
    done
}

# lsblk gets types from udev, which not every system runs. sysfs always distinguishes partitions.
list_partitions() {
    local folder
    for folder in "/sys/class/block/${device##*/}/"*/partition; do
        [[ -e $folder ]] || continue
        folder=${folder%/partition}
        printf '/dev/%s\n' "${folder##*/}"
    done
}

settle() { if [[ -d /run/udev ]]; then udevadm settle --timeout=10; fi; }

# Set table, type, uuid, label and name (of the partition) from blkid, and signatures from wipefs. Each tool misses some.
probe() {
    local key value code=0 text
    table='' type='' uuid='' label='' name='' signatures=()
    text=$(blkid --probe --output export "$1" 2>&1) || code=$? # 2: nothing found; 8: more than one thing
    ((code == 0 || code == 2 || code == 8)) || fail 3 "$1 can't be read: $text" "check the disk (dmesg)"
    while IFS='=' read -r key value; do
        case $key in PTTYPE) table=$value ;; TYPE) type=$value ;; UUID) uuid=$value ;; LABEL) label=$value ;; PART_ENTRY_NAME) name=$value ;; esac
    done <<<"$text"
    ((code != 8)) || type=ambivalent
    text=$(wipefs --noheadings --output TYPE,OFFSET "$1") || fail 3 "$1 can't be read" "check the disk (dmesg)"
    while read -r key value; do
        if [[ $key ]]; then signatures+=("$key at byte $((value))"); fi
    done <<<"$text"
    if [[ ! $table && ${signatures[*]} =~ (gpt|dos)\ at ]]; then table=${BASH_REMATCH[1]}; fi
}

judge_file_system() {
    local named=''
    [[ ! $label ]] || named=", label '$label'"
    evidence+=("$place: ${type:-unknown}$named${uuid:+, UUID $uuid} (${signatures[*]:-no signature})")
    state=foreign
    if [[ $type == ext4 && $uuid && ! $table ]]; then state=ready; fi
}

judge_zeros() {
    local at
    at=$(first_data "$place")
    if [[ $at ]]; then
        state=foreign
        evidence+=("$place: data without a signature, at byte $at")
    else
        state=$1
        evidence+=("$place: no signature, and zeros in its first and last 16 MiB and in $SAMPLES samples between")
    fi
}

# Print the position of the first sampled byte that isn't zero, skipping $2 bytes at either end; print nothing if all are
# zero. Every Debian and Ubuntu has Perl, which reads all samples in one process.
first_data() {
    local bytes
    bytes=$(blockdev --getsize64 "$1")
    perl -e '
        my ($path, $bytes, $ends, $samples, $length, $edge) = @ARGV;
        my $tail = $bytes > $ends ? $bytes - $ends : 0;
        open(my $disk, "<:raw", $path) or die "$path: $!\n";
        for ([$edge, $ends - $edge], [$tail, $ends - $edge], map { [int($tail * $_ / $samples), $length] } 1 .. $samples - 1) {
            my ($at, $count) = @$_;
            sysseek($disk, $at, 0) or die "$path: $!\n";
            while ($count > 0) {
                my $got = sysread($disk, my $block, $count);
                defined $got or die "$path at byte $at: $!\n";
                last if $got == 0;
                if ($block =~ /[^\0]/) { print $at + $-[0]; exit }
                $at += $got;
                $count -= $got;
            }
        }' "$1" "$bytes" "$ENDS_BYTES" "$SAMPLES" "$SAMPLE_BYTES" "${2:-0}" || fail 3 "$1 can't be read" "check the disk (dmesg)"
}

# Where it is mounted, one a line; Docker mounts folders of it for its volumes. Who wants the first reads all: bash
# writes each line by itself, and SIGPIPE would end the script where `head` is gone by then.
mount_points() { printf '%b' "$(findmnt --noheadings --raw --source "$place" --output TARGET || true)"; } # 1: nowhere

mounted_here() {
    local source
    source=$(findmnt --noheadings --raw --mountpoint "$mount" --output SOURCE) || return 1
    [[ $(readlink -f "$source") == $(readlink -f "$place") ]]
}

# Who uses it, one a line: containers first, by the mounts that they see.
users() {
    local device_number kernel_number name pid
    kernel_number=$(lsblk --nodeps --noheadings --output MAJ:MIN "$place" | tr -d ' ')
    while read -r pid name; do
        if grep -q " $kernel_number " "/proc/$pid/mountinfo" 2>/dev/null; then printf 'container %s\n' "${name#/}"; fi
    done < <(containers)
    device_number=$(stat --format=%d "$(mount_points | sed -n 1p)")
    # find fails for every process that ends meanwhile
    { find -L /proc/[0-9]*/{cwd,root,exe} -maxdepth 0 -printf '%D %p\n' || true
      find -L /proc/[0-9]*/fd -mindepth 1 -maxdepth 1 -printf '%D %p\n' || true; } 2>/dev/null |
        awk -v number="$device_number" -F '[ /]' '$1 == number && !seen[$4]++ { print $4 }' |
        while read -r pid; do printf 'process %s (%s)\n' "$pid" "$(cat "/proc/$pid/comm" 2>/dev/null)"; done
}

containers() {
    local ids
    command -v docker >/dev/null || return 0
    ids=$(docker ps --quiet 2>/dev/null) || return 0 # no engine runs, so no container does
    # shellcheck disable=SC2086 # ids are words
    [[ ! $ids ]] || docker inspect --format '{{.State.Pid}} {{.Name}}' $ids
}

# --- how the server uses it --------------------------------------------------------------------------------------------

# Describe each use of the disk, its partitions and everything built on them, one per line.
list_uses() {
    local tree node kind
    # a disk that can't be inspected must not count as unused
    tree=$(lsblk --noheadings --raw --paths --output NAME,TYPE "$device") ||
        fail 3 "what uses $device can't be seen" "lsblk $device shows why"
    while read -r node kind; do
        list_uses_of "$(printf %b "$node")" "$kind"
    done <<<"$tree"
}

# lsblk gets these types from sysfs, and lists users of a disk below it. Their types tell how they use it.
list_uses_of() {
    local targets group
    case $2 in
        disk | part | loop | lvm) ;;
        raid*) say "part of the RAID $1" ;;
        crypt) say "opened as $1 (dm-crypt)" ;;
        *) say "held by $1 ($2)" ;;
    esac
    targets=$(findmnt --noheadings --raw --source "$1" --output TARGET || true) # 1: nowhere
    if [[ $targets ]]; then
        printf 'mounted at %b\n' "${targets//$'\n'/$'\n'mounted at }"
    else
        mounted_by "$1" | while read -r who; do say "mounted by $who, in a namespace of its own"; done
    fi
    if grep -q "^$(readlink -f "$1") " /proc/swaps; then say "swap"; fi
    # without LVM's tools, LVM isn't in use
    group=$(pvs --readonly --noheadings --options vg_name "$1" 2>/dev/null | tr -d ' ' || true)
    [[ ! $group ]] || say "part of LVM's volume group $group"
}

uses() {
    local text='' all=()
    if ! find_device; then
        text="not to be found on this server by its serial ${serial:0:20}"
    else
        text=$(list_uses)
        [[ $text ]] || ! is_held || text="in use, but lsblk doesn't show by what"
    fi
    [[ ! $text ]] || mapfile -t all < <(sort -u <<<"$text")
    json_list "${all[@]}"
    say
}

# The kernel lets one user hold a disk exclusively: a file system, swap, LVM, RAID or another.
is_held() { ! perl -MFcntl -e 'exit !sysopen(my $disk, $ARGV[0], O_RDONLY | O_EXCL)' "$device"; }

# Print the first process whose namespace has the device mounted.
mounted_by() {
    local kernel_number file
    kernel_number=$(lsblk --nodeps --noheadings --output MAJ:MIN "$1" | tr -d ' ')
    file=$(grep -l " $kernel_number " /proc/[0-9]*/mountinfo 2>/dev/null | head -n 1 || true) # 1: none
    [[ ! $file ]] || printf 'process %s (%s)\n' "${file//[^0-9]/}" "$(cat "${file%/*}/comm")"
}

# --- commands ---------------------------------------------------------------------------------------------------------

# States: absent · blank · half-made (by an interrupted run of this script) · ready (to be mounted) · mounted · foreign
# (data that this script neither mounts nor changes). "users" and "used_bytes" are only set if it is mounted.
look() {
    local target='' used=0 who=() bytes=0
    state=absent type='' evidence=()
    if find_device; then
        bytes=$(blockdev --getsize64 "$device")
        inspect
        target=$(mount_points | sed -n 1p)
        if mounted_here; then target=$mount; fi
        if [[ $target ]]; then
            [[ $state != ready ]] || state=mounted
            used=$(df --output=used --block-size=1 "$target" | tail -n 1)
            mapfile -t who < <(users)
        fi
    else
        evidence=("disks here: $(disk_list)")
    fi
    printf '{"state": %s, "device": %s, "size_bytes": %d, "filesystem": %s, "mounted_at": %s, "used_bytes": %d, ' \
        "$(json "$state")" "$(json "$device")" "$bytes" "$(json "$type")" "$(json "$target")" "$used"
    printf '"users": %s, "evidence": %s}\n' "$(json_list "${who[@]}")" "$(json_list "${evidence[@]}")"
}

json() {
    local text=${1//[$'\001'-$'\037']/ }
    text=${text//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

json_list() {
    local separator='' item
    printf '['
    for item in "$@"; do printf '%s%s' "$separator" "$(json "$item")" && separator=', '; done
    printf ']'
}

prepare() {
    need_device
    check_size
    inspect
    case $state in
        ready) keep ;;
        blank)
            may_format
            make_partition
            make_file_system
            ;;
        half-made)
            say "found what an interrupted run has left on $device"
            may_format
            [[ $place != "$device" ]] || make_partition
            make_file_system
            ;;
        *) refuse "can't be mounted by this script" \
            "mount it by hand if the data are yours, or choose another volume; if nothing on it counts, as when formatting \
was cut short or it is to be given up, make the volume again, or wipe it by hand (wipefs, blkdiscard)" ;;
    esac
}

keep() {
    [[ ! $blank || $label == "$OUR_NAME" ]] || refuse "was declared blank, but somebody made a file system on it" \
        "if the data are yours, mount it as it is, without --blank (openstack volume set --property larder:blank=no ${serial:-ID})"
    say "found ext4 on $place, and left it as it is"
}

may_format() {
    [[ $blank ]] || refuse "is blank, but formatting it wasn't permitted" \
        "check that it is the right volume; if so, give --blank"
}

refuse() {
    local line
    for line in "${evidence[@]}"; do printf 'found %s\n' "$line" >&2; done
    fail 3 "$device ${serial:+(serial ${serial:0:20}) }$1; nothing was changed" "$2"
}

make_partition() {
    need_commands
    sfdisk --quiet --wipe never --wipe-partitions never "$device" <<<$'label: gpt\ntype=linux, name='"$OUR_NAME" >/dev/null
    settle
    place=$(partition_nodes)
    [[ -b $place ]] || fail 3 "the new partition of $device doesn't appear" "run this again"
    say "made one partition on $device"
}

# Minimal systems lack these programs.
need_commands() {
    command -v sfdisk >/dev/null || need_packages fdisk
    command -v resize2fs >/dev/null || need_packages e2fsprogs
}

# mkfs writes the folders, too, and the superblock last: so the file system is complete or absent.
make_file_system() {
    need_commands
    local folder
    folder=$(mktemp --directory)
    install --directory --owner="${owner%:*}" --group="${owner#*:}" "$folder/workspace" "$folder/docker-volumes"
    chmod 755 "$folder"
    mkfs.ext4 -q -L "$OUR_NAME" -m 1 -d "$folder" "$place" </dev/null
    rm -r "$folder"
    settle
    say "made ext4 on $place, with the folders workspace and docker-volumes"
}

mount_volume() {
    prepare
    probe "$place"
    if mounted_here; then
        say "found it mounted at $mount"
        write_fstab
    else
        check_mount_point
        write_fstab
        mkdir -p "$mount"
        mount "$mount"
        mounted_here || fail 3 "$mount isn't $place after mounting it" "findmnt $mount and /etc/fstab show what it is"
        say "mounted $place at $mount"
    fi
    write_docker_unit
}

check_mount_point() {
    local elsewhere other twins
    other=$(findmnt --noheadings --raw --mountpoint "$mount" --output SOURCE || true) # 1: nothing is mounted there
    [[ ! $other ]] || fail 3 "$other is mounted at $mount already" "unmount it, or choose another mount point"
    elsewhere=$(mount_points | sed -n 1p)
    [[ ! $elsewhere ]] || fail 3 "$place is mounted at $elsewhere" "unmount it there first: sudo umount '$elsewhere'"
    twins=$(lsblk --noheadings --raw --output UUID | grep -c -x -- "$uuid" || true) # 0 if lsblk lacks udev
    ((twins < 2)) || fail 3 "$twins disks here have the UUID $uuid, one is a copy of the other" "detach one of them"
    [[ ! -e $mount || ! $(ls -A "$mount") ]] || fail 3 \
        "$mount holds files of another disk, which mounting would hide: $(first_names "$mount")" \
        "move them away, or choose another mount point"
}

first_names() { find "$1" -mindepth 1 -maxdepth 1 -printf '%f ' -quit; }

# Replace /etc/fstab atomically, with a single line of ours for this file system: a line for a previous mount point would
# prevent Docker from starting after the volume is removed. Other lines stay unchanged.
write_fstab() {
    local line
    # 90 s: a busy server may find its disks late, and Docker doesn't start if the volume isn't mounted by then.
    line="UUID=$uuid $mount ext4 defaults,nofail,x-systemd.device-timeout=90s,x-larder=${serial:-by-hand} 0 2"
    refuse_others_in_fstab
    if grep -qxF -- "$line" /etc/fstab; then
        say "found it in /etc/fstab"
        return
    fi
    replace_fstab "$line"
    say "wrote it to /etc/fstab"
}

# Look for lines with this device (by UUID, LABEL or path) or this mount point. findmnt returns 1 if there is none.
refuse_others_in_fstab() {
    local foreign
    foreign=$({ findmnt --fstab --evaluate --noheadings --source "$place" --output SOURCE,TARGET,OPTIONS || true
               fstab_lines; } | grep -v x-larder= | head -n 1 || true)
    [[ ! $foreign ]] || fail 3 "/etc/fstab has a line of somebody else for $place or $mount: $foreign" \
        "remove that line, or choose another mount point"
}

# Print all lines for this mount point. Ours have the option x-larder=.
fstab_lines() { awk -v mount="$mount" '$1 !~ /^#/ { at = $2; sub(/\/+$/, "", at); if (at == mount) print }' /etc/fstab; }

# Print the mount point in our line for this file system. It differs from the declared one if that has changed.
our_mount_point() { awk -v source="UUID=$uuid" '$1 == source && $4 ~ /x-larder=/ { print $2; exit }' /etc/fstab; }

replace_fstab() {
    cp --preserve=all /etc/fstab /etc/fstab.larder # keeps owner and mode
    awk -v mount="$mount" -v source="UUID=${uuid:-}" \
        '$1 ~ /^#/ || ($2 != mount && $1 != source) || $4 !~ /x-larder=/' /etc/fstab >/etc/fstab.larder
    [[ ! $1 ]] || printf '%s\n' "$1" >>/etc/fstab.larder
    sync /etc/fstab.larder
    mv /etc/fstab.larder /etc/fstab
    reload_systemd
}

reload_systemd() { if [[ -d /run/systemd/system ]]; then systemctl daemon-reload; fi; }

docker_unit() { printf '/etc/systemd/system/docker.service.d/larder-%s.conf' "$(systemd-escape --path "$mount")"; }

# Without this, Docker would start without the volume, and containers would write to the root disk.
write_docker_unit() {
    local path text
    path=$(docker_unit) text=$'[Unit]\nRequiresMountsFor='"$mount"
    if [[ -e $path && $(<"$path") == "$text" ]]; then
        say "found Docker's unit requiring it"
        return
    fi
    mkdir -p "${path%/*}"
    printf '%s\n' "$text" >"$path"
    reload_systemd
    say "had Docker's unit require it"
}

unmount_volume() {
    local who before
    if ! find_device; then
        unmount_remains
    else
        inspect
        before=$(our_mount_point)
        mount=${before:-$mount}
        if mounted_here; then
            who=$(users)
            [[ ! $who ]] || fail 3 "$mount is in use by ${who//$'\n'/, }" "stop them, then run this again"
            umount "$mount" || fail 3 "$mount is in use" "lsof +f -- $mount may show by whom; stop that, then run this again"
            say "unmounted $mount"
        else
            say "found it not mounted at $mount"
        fi
        check_let_go
    fi
    forget_volume
}

# The disk was detached while it was mounted: nothing can be written to it any more.
unmount_remains() {
    local source
    source=$(findmnt --noheadings --raw --mountpoint "$mount" --output SOURCE || true) # 1: nothing is mounted
    [[ ! $source || ($source == /dev/* && ! -b $source) ]] || fail 3 "$source is mounted at $mount, and isn't the disk with the serial ${serial:0:20}" \
        "check which volume is meant: volume.sh look --serial ID, lsblk -o PATH,SERIAL,MOUNTPOINTS"
    [[ ! $source ]] || umount --lazy "$mount"
    say "found no disk with the serial ${serial:0:20}${source:+, and unmounted what was left of it}"
}

# The volume may be mounted a second time, or a container may hold a copy of the mount in its own namespace.
check_let_go() {
    local left
    left=$(mount_points | sed -n 1p)
    [[ ! $left ]] || fail 3 "$place is still mounted at $left" "sudo umount '$left', then run this again"
    left=$(mounted_by "$place")
    [[ ! $left ]] || fail 3 "the $left still has $place mounted" "stop it, then run this again"
}

forget_volume() {
    local ours path
    ours=$(fstab_lines | grep -F "x-larder=${serial:-by-hand}" || true) # 1: none
    if [[ $ours ]]; then replace_fstab '' && say "took it out of /etc/fstab"; fi
    path=$(docker_unit)
    if [[ -e $path && ! $(fstab_lines) ]]; then
        rm "$path"
        reload_systemd
        say "Docker starts without it"
    fi
}

grow() {
    local text
    need_device
    await_size
    inspect
    [[ $state == ready ]] || refuse "has no file system that can grow" "look shows what stands on it"
    if [[ $place != "$device" ]]; then grow_partition; fi
    if [[ ! $(mount_points) ]]; then check_file_system; fi
    text=$(resize2fs "$place" 2>&1) || fail 3 "resize2fs $place failed: $text" "check the disk (dmesg), then run this again"
    say "the file system fills $place, $(words "$(blockdev --getsize64 "$place")")"
}

# resize2fs requires this check for a file system that isn't mounted.
check_file_system() {
    local text code=0
    text=$(e2fsck -f -p "$place" 2>&1) || code=$? # 1: errors were corrected
    ((code <= 1)) || fail 3 "e2fsck $place found errors that it can't correct automatically: $text" "run e2fsck $place by hand"
}

# The kernel notices the new size a moment after the cloud has grown the volume.
await_size() {
    local deadline=$((SECONDS + seconds)) rescan
    rescan="/sys/class/block/${device##*/}/device/rescan" # SCSI disks need a rescan
    while [[ $gib && $(blockdev --getsize64 "$device") -ne $((gib * GIB)) ]] && ((SECONDS < deadline)); do
        [[ ! -w $rescan ]] || echo 1 >"$rescan"
        sleep 0.5
    done
    check_size
}

grow_partition() {
    local sysfs disk_end partition_end text
    need_commands
    sysfs=/sys/class/block/${place##*/}
    disk_end=$(($(blockdev --getsize64 "$device") / 512))
    partition_end=$(($(<"$sysfs/start") + $(<"$sysfs/size")))
    if ((disk_end - partition_end <= 4096)); then # 2 MiB: alignment and the second copy of the table
        say "found the partition as large as the disk"
        return
    fi
    text=$(sfdisk --quiet --force --no-reread --no-tell-kernel --partno "$(<"$sysfs/partition")" "$device" 2>&1 <<<', +') ||
        fail 3 "sfdisk can't extend the partition: $text" "check the disk (dmesg), then run this again"
    partx --update "$device"
    settle
    say "grew the partition to $(words "$(blockdev --getsize64 "$place")")"
}

main "$@"
