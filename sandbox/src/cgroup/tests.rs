//! Control groups, in directories made for the purpose and in those of the kernel.

use super::*;
use cofferdam_model::random::SeededRandom;

fn id() -> CellId {
    CellId::mint(&SeededRandom::new(1))
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn groups(plan: Result<Plan, String>) -> Cgroups {
    Cgroups { parents: Some(plan.unwrap().carry_out().unwrap()), warned: AtomicBool::new(false) }
}

fn function() -> FunctionLimits {
    FunctionLimits { memory_bytes: 1024 * 1024, ..FunctionLimits::default() }
}

#[test]
fn version_two_gets_a_directory_for_each_cell_below_one_without_processes() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("service");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
    let groups = groups(find(None, "0::/service\n", root.path()));
    assert_eq!(read(dir.join("cofferdam-node/cgroup.procs")), "0");
    assert_eq!(read(dir.join("cgroup.subtree_control")), "+memory +pids +cpu");
    let cell = groups.place(&id(), 4_000_000).unwrap();
    cell.limit(&function(), 3);
    let made = dir.join(name()).join(id().as_str());
    assert_eq!(read(made.join("cgroup.procs")), "4000000");
    assert_eq!(read(made.join("memory.max")), (3 * 1024 * 1024 + 64 * 1024 * 1024).to_string());
    assert_eq!((read(made.join("pids.max")).as_str(), read(made.join("memory.oom.group")).as_str()), ("16", "1"));
    assert_eq!((read(dir.join(name()).join("cpu.weight")).as_str(), groups.kind()), ("10", "v2"));
}

#[test]
fn version_one_sets_each_limit_where_its_hierarchy_is() {
    let root = tempfile::tempdir().unwrap();
    for resource in ["memory", "pids", "cpu"] {
        fs::create_dir_all(root.path().join(resource).join("a/b")).unwrap();
    }
    let groups =
        groups(find(None, "9:name=systemd:/\n8:pids:/a\n4:memory:/a/b\n2:cpuacct,cpu:/a\n0::/\n", root.path()));
    let cell = groups.place(&id(), 4_000_000).unwrap();
    cell.limit(&function(), 1);
    let (memory, pids) = (root.path().join("memory/a/b").join(name()), root.path().join("pids/a").join(name()));
    let (memory, pids) = (memory.join(id().as_str()), pids.join(id().as_str()));
    assert_eq!(read(memory.join("memory.limit_in_bytes")), (65 * 1024 * 1024).to_string());
    assert_eq!(read(pids.join("pids.max")), "16");
    let cpu = root.path().join("cpu/a").join(name());
    assert_eq!((read(cpu.join("cpu.shares")).as_str(), groups.kind()), ("100", "v1"));
    assert_eq!(read(cpu.join(id().as_str()).join("cgroup.procs")), "4000000");
    assert!(!memory.join("pids.max").exists() && !pids.join("memory.limit_in_bytes").exists());
    assert_eq!((read(memory.join("cgroup.procs")), read(pids.join("cgroup.procs"))).0, "4000000");
}

#[test]
fn what_cannot_be_had_is_said_and_nothing_fails() {
    let root = tempfile::tempdir().unwrap();
    assert!(find(None, "", root.path()).unwrap_err().contains("no cgroups"));
    let refused = find(Some(&root.path().join("none")), "", root.path()).unwrap_err();
    assert!(refused.contains("no directory can be made"), "{refused}");
    fs::write(root.path().join("cgroup.controllers"), "cpu\n").unwrap();
    let refused = find(None, "0::/\n", root.path()).unwrap_err();
    assert!(refused.contains("controllers `cpu`"), "{refused}");
    assert!(Cgroups::none().place(&id(), 1).is_none());
    assert_eq!(Cgroups::none().kind(), "none");
}

#[test]
fn looking_makes_nothing_and_processors_alone_are_no_reason_to_go_without() {
    let root = tempfile::tempdir().unwrap();
    for resource in ["memory", "pids"] {
        fs::create_dir(root.path().join(resource)).unwrap();
    }
    let plan = find(None, "3:pids:/\n2:memory:/\n1:cpu:/\n", root.path()).unwrap();
    assert_eq!(plan.dirs.iter().map(|dir| dir.resource).collect::<Vec<_>>(), ["memory", "pids"]);
    assert_eq!(fs::read_dir(root.path().join("memory")).unwrap().count(), 0);
    assert!(cgroups(Some(&root.path().join("none"))).is_err());
    assert!(cgroups(Some(root.path())).unwrap().starts_with("v1 below `"));
}

#[tokio::test]
async fn a_group_of_the_real_kernel_holds_the_process_with_its_children_and_goes_with_them() {
    let groups = Cgroups::open(None);
    let mut shell = std::process::Command::new("/bin/sh")
        .args(["-c", "sleep 60 & sleep 60 & echo; wait"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Once it has said something it has forked.
    io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let all = [vec![shell.id()], children(shell.id())].concat();
    assert_eq!(all.len(), 3);
    let placed = groups.place(&id(), shell.id());
    assert_eq!(groups.parents.is_some(), placed.is_some());
    let dirs = placed.as_ref().map(|group| group.dirs.clone()).unwrap_or_default();
    if let Some(group) = &placed {
        group.limit(&function(), 1);
        for pid in &all {
            let seen = read(format!("/proc/{pid}/cgroup").into());
            assert_eq!(seen.matches(id().as_str()).count(), dirs.len(), "{seen}");
        }
    }
    for pid in all {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    shell.wait().unwrap();
    if let Some(group) = placed {
        group.remove().await;
    }
    assert!(groups.place(&id(), 4_000_000).is_none(), "there is no such process");
    assert!(!groups.warned.load(Ordering::Relaxed), "one that is gone is nothing to speak of");
    groups.close().await;
    assert!(dirs.iter().all(|dir| !dir.path.exists()), "{dirs:?}");
}
