//! The empty root directory.
//!
//! Owns swapping the root for an empty, read-only file system nobody else can reach. Must never run without a mount
//! namespace of its own, or it would empty the host's.

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::report::{LayerName, Report, State};

/// The one directory every Linux has, used as the place to mount on. What was there is gone with the old root.
const PLACE: &str = "/proc";

pub(crate) fn empty(report: &mut Report) {
    if report.state(LayerName::MountNamespace) != State::On {
        return report.off(LayerName::EmptyRoot, "no mount namespace to do it in");
    }
    match mount_nothing() {
        Err(error) => report.off(LayerName::EmptyRoot, format_args!("mount: {error}")),
        Ok(()) => match pivot() {
            Ok(()) => report.on(LayerName::EmptyRoot, "empty, read-only, the old one is unmounted"),
            Err(error) => match rustix::process::chroot(".") {
                Ok(()) => report.add(
                    LayerName::EmptyRoot,
                    State::Reduced,
                    format_args!("empty, but the old one is only hidden (pivot_root: {error})"),
                ),
                Err(chroot) => report.off(LayerName::EmptyRoot, format_args!("chroot: {chroot}")),
            },
        },
    }
}

fn mount_nothing() -> rustix::io::Result<()> {
    // Without this, what is mounted here would appear on the host.
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // One page and one inode: the root itself.
    rustix::mount::mount("none", PLACE, "tmpfs", flags, c"size=4k,nr_inodes=1,mode=0555")?;
    rustix::process::chdir(PLACE)
}

fn pivot() -> rustix::io::Result<()> {
    // Stacks the old root on top of the new one, where it can be let go of without a directory to keep it in.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount_remount("/", MountFlags::BIND | MountFlags::RDONLY | flags, c"")
}
