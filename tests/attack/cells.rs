//! Cells seen from outside: what the kernel says of a process that runs tenant code.

use std::fs;

use cofferdam_tests::{Node, Scene, Site, processes};
use http::StatusCode;

/// Looks at all processes before a test gives up.
const LOOKS: usize = 1_000;

fn status_field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    line.trim_start_matches(':').trim().to_owned()
}

/// The cells below a node: processes in a pid namespace of their own. What waits for them outside is not one. A process
/// that is being started is none yet, and is waited for.
fn jailed(scene: &Scene) -> Vec<u32> {
    let inside = |pid: &u32| status_field(*pid, "NSpid").split_whitespace().count() > 1;
    let all = || processes::below(scene.node.pid()).into_iter().filter(inside).collect();
    let settled = |pids: &Vec<u32>| pids.iter().all(|pid| status_field(*pid, "Seccomp") == "2");
    (0..LOOKS).map(|_| all()).find(settled).unwrap_or_else(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_run_without_privileges_under_a_filter_in_namespaces_of_their_own() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    let cells = jailed(&scene);
    assert!(!cells.is_empty(), "no process below the node is in a pid namespace of its own");
    for pid in cells {
        assert_eq!(status_field(pid, "Seccomp"), "2");
        assert_eq!(status_field(pid, "NoNewPrivs"), "1");
        for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(u64::from_str_radix(&status_field(pid, set), 16), Ok(0), "{set} of {pid}");
        }
        assert!(!status_field(pid, "Uid").starts_with("0\t"), "a cell runs as root");
        for namespace in ["net", "mnt", "pid", "ipc", "uts", "user"] {
            let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{namespace}"));
            assert_ne!(of(pid).unwrap(), of(scene.node.pid()).unwrap(), "{namespace}");
        }
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        assert!(environment.is_empty(), "a cell inherited an environment");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_of_a_node_run_by_root_never_share_a_user() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let mut bob = scene.caller("globex", "bob", "invoker").await.unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    assert_eq!(bob.get("/globex/hello").await.unwrap().status, StatusCode::OK);
    let cells = jailed(&scene);
    assert!(cells.len() >= 2, "{cells:?}");
    let node = status_field(scene.node.pid(), "Uid");
    let mut users = std::collections::HashMap::new();
    for pid in cells {
        let (user, group) = (status_field(pid, "Uid"), status_field(pid, "Gid"));
        let ids: Vec<&str> = user.split_whitespace().collect();
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "one id, real, effective, saved and for files: {user}");
        if node.starts_with("0\t") {
            assert_eq!(user, group);
            // In a container with few ids the cells share one that owns nothing, and the node says so.
            if !has_user(2_000_000_000) {
                assert_eq!(ids[0], "65534", "{user}");
                continue;
            }
            assert!(ids[0].parse::<u32>().unwrap() >= 2_000_000_000, "{user}");
            assert_eq!(users.insert(user, pid), None, "two cells are the same user");
        } else {
            assert_eq!(user, node, "an ordinary user's cells are that user, in namespaces of their own");
        }
    }
}

#[test]
fn a_node_that_requires_full_isolation_does_not_start_where_cells_have_no_control_group() {
    let site = Site::init().unwrap();
    let config = site.data().join("cofferdam.toml");
    let was = fs::read_to_string(&config).unwrap_or_default();
    let nowhere = site.data().join("no-control-groups-here");
    let isolation = |required: &str| format!("{was}\n[isolation]\nrequired = \"{required}\"\ncgroup = {nowhere:?}\n");
    fs::write(&config, isolation("full")).unwrap();
    let refused = Node::start(&site).err().expect("a refusal").to_string();
    assert!(refused.contains("`full` is required"), "{refused}");
    // With less it starts, and says in the log what its cells are.
    fs::write(&config, isolation("minimal")).unwrap();
    assert!(Node::start(&site).unwrap().stop().unwrap());
    let records = site.records().unwrap();
    let start = records.iter().find(|record| record["kind"] == "start").unwrap();
    assert!(start["detail"].as_str().unwrap().contains("cgroups=none"), "{start}");
    assert!(!start["detail"].as_str().unwrap().contains("isolation=full"), "{start}");
}

/// Whether this user namespace has an id.
fn has_user(id: u64) -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        matches!(numbers[..], [first, _, count] if (first..first + count).contains(&id))
    })
}

/// Where a process is in the hierarchies that bound it: for version 1 that of each resource, for version 2 the one.
fn groups_of(pid: u32, version: &str) -> Vec<String> {
    let listed = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let wanted: &[&str] = if version == "v2" { &[""] } else { &["memory", "pids"] };
    let of = |wanted: &&str| {
        let has =
            |line: &&str| line.split(':').nth(1).is_some_and(|names| names.split(',').any(|name| name == *wanted));
        listed.lines().find(has).and_then(|line| line.splitn(3, ':').nth(2)).unwrap_or_default().to_owned()
    };
    wanted.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_of_a_cell_is_in_the_control_group_of_that_cell() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    let records = scene.site.records().unwrap();
    let mut details = records.iter().filter_map(|record| record["detail"].as_str());
    let version = details.find_map(|detail| detail.split("cgroups=").nth(1)).unwrap().to_owned();
    let cell = records.iter().find_map(|record| record["cell"]["id"].as_str()).unwrap();
    let node = format!("/cofferdam-{}/", scene.node.pid());
    // The jailed process and its guardian, which is its parent, in one group of the node's in every hierarchy.
    let placed = |pid: u32| {
        let groups = groups_of(pid, &version);
        let id = groups[0].rsplit('/').next().unwrap_or_default();
        let own = groups.iter().all(|group| group.ends_with(&format!("{node}{id}")));
        let guardian = status_field(pid, "PPid").parse().unwrap_or_default();
        (own && groups_of(guardian, &version) == groups).then(|| id.to_owned())
    };
    // One that was started this very moment, to wait in the place of the one that serves, may still be on its way in.
    let all = || jailed(&scene).into_iter().map(placed).collect::<Vec<_>>();
    if version == "none" {
        assert!(all().iter().all(Option::is_none), "the node said that there are no groups");
        return;
    }
    let settled = |ids: &Vec<Option<String>>| ids.iter().all(Option::is_some);
    let ids = (0..LOOKS).map(|_| all()).find(settled).unwrap_or_else(all);
    assert!(settled(&ids), "a cell is outside of its group: {ids:?}");
    assert_eq!(ids.iter().flatten().filter(|id| *id == cell).count(), 1, "cell {cell} is in no group of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_never_share_a_cell() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let mut bob = scene.caller("globex", "bob", "invoker").await.unwrap();
    for _ in 0..5 {
        assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
        assert_eq!(bob.get("/globex/hello").await.unwrap().status, StatusCode::OK);
    }
    let mut owner = std::collections::HashMap::new();
    for record in scene.site.records().unwrap() {
        let (cell, tenant) = (record["cell"]["id"].as_str(), record["tenant"].as_str());
        if let (Some(cell), Some(tenant)) = (cell, tenant) {
            let first = owner.entry(cell.to_owned()).or_insert_with(|| tenant.to_owned());
            assert_eq!(first, tenant, "cell {cell} served two tenants");
        }
    }
    assert!(owner.len() >= 2, "{owner:?}");
}
