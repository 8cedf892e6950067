#!/bin/busybox sh
# First process of a guest. Puts a writable overlay on top of the host's root directory and hands
# over to `xtask guest`, which does the rest from inside it.
bb=/bin/busybox
export PATH=/bin

fail() {
    echo "guest: $1" >/dev/console
    $bb poweroff -f
}

$bb mkdir -p /dev /proc /sys /host /packages /upper /root
$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
while read -r module; do
    $bb insmod "/modules/$module" || fail "module $module does not load"
done </modules/order
$bb ip link set lo up

p9=trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000
$bb mount -t 9p -o $p9 host /host || fail "the host's root directory cannot be mounted"
$bb mount -t 9p -o $p9 packages /packages || fail "the guest packages cannot be mounted"
$bb mount -t tmpfs -o mode=755,size=80% upper /upper
$bb mkdir /upper/upper /upper/work
$bb mount -t overlay -o lowerdir=/packages:/host,upperdir=/upper/upper,workdir=/upper/work overlay /root ||
    fail "the overlay cannot be mounted"

$bb mount -t tmpfs -o mode=755,nosuid,nodev run /root/run
$bb mkdir /root/run/guard-vm
$bb cp /config.json /root/run/guard-vm/
for dir in dev proc sys; do
    $bb mount --move /$dir /root/$dir
done
. /config.sh
exec $bb switch_root /root "$guest" guest
