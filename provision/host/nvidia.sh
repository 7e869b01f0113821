#!/usr/bin/env bash
# NVIDIA's driver and container toolkit, on a server with an NVIDIA GPU; on all others, nothing.
set -euo pipefail
ARGUMENTS="$*"
. "$(dirname "$0")/common.sh"

REBOOT=4
ASKED=/var/lib/larder-nvidia-boot # the boot in which the driver was installed and didn't load
KEYRING=/etc/apt/keyrings/nvidia-container-toolkit.asc
REPOSITORY=https://nvidia.github.io/libnvidia-container

usage() {
    cat <<'X'
nvidia.sh [--image IMAGE] [--sysfs FOLDER]

  --image IMAGE     the container image in which nvidia-smi must show all GPUs; default debian:bookworm-slim
  --sysfs FOLDER    where the kernel lists the devices; default /sys

Without an NVIDIA GPU, it does nothing. A driver that works stays unchanged, whatever its source: images with CUDA have
one. Else it installs that of Ubuntu (ubuntu-drivers), or Debian's from non-free. If Docker is installed, it adds NVIDIA's
container toolkit, and runs nvidia-smi in a container. It never reboots: exit code 4 means that the driver needs it.
X
}

main() {
    local image=debian:bookworm-slim sysfs=/sys gpus
    [[ " $* " == *" --help "* ]] && { usage; exit; }
    while (($#)); do
        (($# > 1)) || wrong_usage "$1 lacks its value"
        case $1 in --image) image=$2 ;; --sysfs) sysfs=$2 ;; *) wrong_usage "unknown option $1" ;; esac
        shift 2
    done
    need_root
    take_turn
    gpus=$(devices "$sysfs" 0x03 | wc -l)
    if ((gpus == 0)); then
        say "found no NVIDIA GPU: nothing to install"
        return
    fi
    need_driver "$gpus"
    [[ ! $(devices "$sysfs" 0x0680) ]] ||
        say "found NVSwitch: CUDA also needs nvidia-fabricmanager of the driver's version, which this script doesn't install"
    if ! command -v dockerd >/dev/null; then
        say "found no Docker: no container toolkit is installed"
        return
    fi
    need_toolkit
    check_in_container "$image" "$gpus"
}

# devices SYSFS CLASS: NVIDIA's PCI devices of a class. A GPU is of class 0x03; its sound and USB functions aren't.
devices() {
    local device
    for device in "$1"/bus/pci/devices/*/; do
        [[ -e $device/vendor && $(<"$device/vendor") == 0x10de && $(<"$device/class") == "$2"* ]] || continue
        printf '%s\n' "$device"
    done
}

need_driver() {
    local seen
    if seen=$(nvidia_smi); then
        say "found the driver: $(describe "$seen")"
    else
        [[ -e $ASKED ]] || install_driver
        load_driver
    fi
    rm -f "$ASKED"
    (($(wc -l <<<"$seen") >= $1)) ||
        fail 3 "the driver works with $(describe "$seen") alone, and there are $1 GPUs" "sudo dmesg | grep -i nvrm shows why"
}

# nvidia_smi [COMMAND…]: a line for each GPU, such as "NVIDIA A100-SXM4-80GB, 570.86.15". Fails without a driver.
nvidia_smi() { "$@" nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>&1; }

# Such as "2 x NVIDIA A100-SXM4-80GB, 570.86.15".
describe() { sort <<<"$1" | uniq --count | sed -E 's/^ *([0-9]+) /\1 x /' | paste --serial --delimiters=';'; }

one_line() { paste --serial --delimiters=';' <<<"$1"; }

install_driver() {
    local branch
    case $(. /etc/os-release && echo "${ID:-}") in
        ubuntu)
            need_packages ubuntu-drivers-common "linux-headers-$(uname -r)"
            patiently ubuntu-drivers install --gpgpu || packages_failed "ubuntu-drivers install --gpgpu"
            branch=$(driver_branch)
            need_packages "nvidia-utils-$branch" # ubuntu-drivers leaves nvidia-smi out
            ;;
        debian)
            await_first_boot
            refresh_lists
            [[ $(apt-cache policy nvidia-driver | awk '$1 == "Candidate:" { print $2 }') == [0-9]* ]] ||
                fail 2 "Debian's non-free packages, which have NVIDIA's driver, aren't enabled" \
                    "add 'contrib non-free non-free-firmware' in /etc/apt/sources.list or sources.list.d, then run this again"
            need_packages "linux-headers-$(dpkg --print-architecture)" nvidia-driver nvidia-smi
            ;;
        *) fail 2 "this is neither Debian nor Ubuntu" "install NVIDIA's driver by hand: docs.nvidia.com/datacenter/tesla" ;;
    esac
    say "installed the driver"
}

# Such as 570-server: what ubuntu-drivers has chosen.
driver_branch() {
    local branch
    branch=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 'nvidia-headless-no-dkms-*' 2>/dev/null |
        sed -nE 's/^installed nvidia-headless-no-dkms-(.*)$/\1/p' | sort --version-sort | tail -n 1)
    [[ $branch ]] || fail 3 "ubuntu-drivers knows no driver for this GPU" \
        "ubuntu-drivers list --gpgpu shows its drivers; choose an image with a driver, such as CC-Ubuntu24.04-CUDA"
    printf '%s' "${branch%-open}"
}

# A fresh driver may need a reboot: where nouveau holds the GPU, or the driver was built for a newer kernel.
load_driver() {
    local why boot
    boot=$(</proc/sys/kernel/random/boot_id)
    why=$(modprobe nvidia 2>&1) || true # nvidia-smi tells whether it works
    if seen=$(nvidia_smi); then
        say "loaded the driver: $(describe "$seen")"
        return
    fi
    why=$(one_line "${why:-$seen}")
    if [[ -e $ASKED && $(<"$ASKED") != "$boot" ]]; then
        rm -f "$ASKED"
        fail 3 "NVIDIA's driver doesn't work, even after a reboot: $why" \
            "sudo dmesg | grep -i -e nvidia -e nouveau shows why; with Secure Boot (mokutil --sb-state), only signed modules load"
    fi
    printf '%s\n' "$boot" >"$ASKED"
    fail $REBOOT "NVIDIA's driver is installed, but works only after a reboot: $why" \
        "stop what runs on the server, sudo reboot, then run this again"
}

need_toolkit() {
    if command -v nvidia-ctk >/dev/null; then
        say "found $(nvidia-ctk --version | head -n 1)"
        return
    fi
    need_packages ca-certificates curl
    install --directory --mode=0755 "${KEYRING%/*}"
    curl --fail --silent --show-error --location --retry 3 --output "$KEYRING" "$REPOSITORY/gpgkey" ||
        fail 5 "nvidia.github.io gives no key for the container toolkit" "check the network, then run this again"
    printf 'deb [signed-by=%s] %s/stable/deb/%s /\n' "$KEYRING" "$REPOSITORY" "$(dpkg --print-architecture)" \
        >/etc/apt/sources.list.d/nvidia-container-toolkit.list
    rm -f /run/larder-lists # they are outdated now
    need_packages nvidia-container-toolkit
}

# Whether containers get GPUs is seen by running one, since Docker finds the toolkit when it starts.
check_in_container() {
    local image=$1 seen
    docker image inspect "$image" >/dev/null 2>&1 || docker pull --quiet "$image" >/dev/null ||
        fail 5 "the image $image, in which the GPUs are checked, can't be pulled" \
            "check that the server reaches the registry; run this again, or with --image"
    if ! seen=$(in_container "$image"); then
        configure_docker "$(one_line "$seen")"
        seen=$(in_container "$image") ||
            fail 3 "a container doesn't get the GPUs: $(one_line "$seen")" \
                "sudo docker run --rm --gpus all $image nvidia-smi shows the same; docs.nvidia.com: Container Toolkit, Troubleshooting"
        say "configured Docker for the GPUs"
    fi
    (($(wc -l <<<"$seen") >= $2)) ||
        fail 3 "a container gets $(describe "$seen") alone, and there are $2 GPUs" "compare nvidia-smi here and in a container"
    say "found in a container: $(describe "$seen")"
}

in_container() { nvidia_smi docker run --rm --gpus all "$1"; }

configure_docker() {
    local state
    [[ ! $(docker ps --quiet) ]] ||
        fail 3 "Docker must be restarted to give GPUs to containers, and containers are running ($1)" \
            "stop them (docker ps shows them), then run this again"
    state=$(nvidia-ctk runtime configure --runtime=docker 2>&1) ||
        fail 3 "nvidia-ctk can't configure Docker: $state" "correct /etc/docker/daemon.json, then run this again"
    state=$(systemctl restart docker 2>&1) || fail 5 "Docker doesn't start: $state" "journalctl -u docker shows why"
}

main "$@"
