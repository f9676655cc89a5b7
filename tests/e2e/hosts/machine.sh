# Makes the calling process, the first of new namespaces, a host of its own, which nothing leads out of but its network.
# Arguments: the host's name, its directory on the machine that tests, and directories that it is to see, as FROM:TO.
set -e
name=$1 dir=$2
shift 2
read -r pid _ < /proc/self/stat
umount --no-canonicalize --lazy --all --types fuse.s4 2> /dev/null || :
hostname "$name"
root=$dir/root
mkdir -p "$root"
mount -t tmpfs -o mode=755 none "$root"
for entry in /*; do
    at=$root$entry
    if [ -L "$entry" ]; then
        ln -s "$(readlink "$entry")" "$at"
        continue
    fi
    case $entry in
    /usr | /lib* | /bin | /sbin) mkdir "$at" && mount --bind "$entry" "$at" && mount -o remount,bind,ro "$at" ;;
    /dev | /sys) mkdir "$at" && mount --rbind "$entry" "$at" ;;
    /proc | /run) mkdir "$at" ;;
    /tmp) mkdir -m 1777 "$at" ;;
    esac
done
for own in /etc /var; do
    upper=$dir/upper$own
    mkdir -p "$root$own" "$upper" "$dir/work$own"
    mount -t overlay -o "lowerdir=$own,upperdir=$upper,workdir=$dir/work$own" none "$root$own"
done
# As on a machine that was just installed.
for own in /home /opt /root /srv /usr/local; do
    mkdir -p "$root$own" "$dir/upper$own"
    mount --bind "$dir/upper$own" "$root$own"
done
mkdir -p "$root/usr/local/bin"
mount -t proc none "$root/proc"
mount -t tmpfs none "$root/run"
mkdir -p "$root/run/sshd" "$root/data"
mount -o loop "$dir/image" "$root/data"
for shared; do
    mkdir -p "$root${shared#*:}"
    mount --bind "${shared%%:*}" "$root${shared#*:}"
done
cd "$root"
mkdir old
pivot_root . old
umount -l /old
rmdir /old
hostname > /etc/hostname
ip link set lo up
echo "$pid"
# The kernel is to reap orphans: the first process of the namespace is their parent.
exec env --ignore-signal=CHLD cat
