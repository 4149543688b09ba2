#!/bin/busybox sh
# First process of the machine: lays the host's files, which it can't change, below a tree in memory
# and runs the scenes in that. What the kernel doesn't know of its command line is a variable here.
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /host /packages /memory /tree
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module"; done
options=ro,trans=virtio,version=9p2000.L,cache=loose,msize=262144
mount -t 9p -o "$options" host /host
mount -t 9p -o "$options" tree /packages
mount -t tmpfs memory /memory
mkdir /memory/upper /memory/work
layers="nosuid,lowerdir=/packages:/host,upperdir=/memory/upper,workdir=/memory/work"
mount -t overlay -o "$layers" overlay /tree || poweroff -f
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
mkdir -p /dev/pts /dev/shm /tree/run
mount -t devpts devpts /dev/pts
for each in proc sys dev; do mount --move "/$each" "/tree/$each"; done
mount -t tmpfs run /tree/run
mount -t cgroup2 cgroup /tree/sys/fs/cgroup
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C.UTF-8
cd "/tree$PROJECT" || poweroff -f
cat >/tree/run/first <<EOF
cd "$PROJECT"
PYTHONPATH="$PROJECT" "$PYTHON" -P -m tests.vm.guest $SCENES </dev/null
busybox poweroff -f
EOF
exec switch_root /tree /bin/sh /run/first
