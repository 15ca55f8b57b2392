//! What is in the log can be proved to strangers: by tiles, by receipts, and to each tenant by a tree of its own.

use cofferdam_audit::receipt::{Receipt, TlogProof};
use cofferdam_audit::tree::{Hash, leaf_hash};
use cofferdam_audit::{check_tenant, proof};
use cofferdam_tests::Scene;
use cofferdam_tests::client::{Broken, Client};
use http::{Method, StatusCode};

/// Tiles for everybody, and roots of tenants recorded as often as can be.
const OPEN: &str = "[audit]\npublic_tiles = true\ntenant_roots_ms = 100\n";

/// A connection with a new key of the platform or of a tenant.
async fn keyed(scene: &Scene, tenant: &str, role: &str) -> Client {
    let made = scene.node.run(&scene.site, &["key", "create", tenant, role, "--role", role, "--json"]).unwrap();
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    scene.node.client().await.unwrap().with(&format!("ApiKey {}", made["key"].as_str().unwrap()))
}

/// A path's number, as C2SP writes small ones.
fn tile(level: u8, n: u64, width: u64) -> String {
    let part = if width == 256 { String::new() } else { format!(".p/{width}") };
    format!("/-/v1/audit/tile/{level}/{n:03}{part}")
}

/// Size and root of a checkpoint.
fn said(note: &str) -> (u64, String) {
    let mut lines = note.lines().skip(1);
    (lines.next().unwrap().parse().unwrap(), lines.next().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_check_the_tree_by_its_tiles_and_auditors_every_record_of_it() {
    let scene = Scene::with_config(OPEN).unwrap();
    let mut alice = scene.alice().await.unwrap();
    for _ in 0..300 {
        assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    }
    let mut nobody = scene.node.client().await.unwrap();
    let mut auditor = keyed(&scene, "platform", "auditor").await;
    // A checkpoint is signed now and then; the next one covers the calls.
    let wait = async {
        loop {
            let answer = nobody.get("/-/v1/audit/checkpoint").await.unwrap();
            assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "text/plain; charset=utf-8"));
            let (size, root) = said(&answer.text());
            if size > 256 {
                return (size, root);
            }
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(20), wait).await;
    let (size, root) = waited.expect("a checkpoint of the calls");

    let (mut hashes, mut entries): (Vec<Hash>, Vec<Hash>) = (Vec::new(), Vec::new());
    for n in 0..size.div_ceil(256) {
        let width = (size - n * 256).min(256);
        let path = tile(0, n, width);
        let answer = nobody.get(&path).await.unwrap();
        assert_eq!((answer.status, answer.body.len() as u64), (StatusCode::OK, width * 32), "{path}");
        assert!(answer.header("cache-control").contains("immutable"));
        hashes.extend_from_slice(answer.body.as_chunks().0);

        let path = path.replace("/tile/0/", "/tile/entries/");
        assert_eq!(nobody.get(&path).await.unwrap().status, StatusCode::UNAUTHORIZED, "{path}");
        let answer = auditor.get(&path).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let mut rest = answer.body.as_ref();
        while let [high, low, more @ ..] = rest {
            let (entry, others) = more.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            entries.push(leaf_hash(entry));
            rest = others;
        }
    }
    assert_eq!(hashes, entries, "every hash is that of its record");
    let line = Receipt { origin: "a/b".into(), index: 0, leaf: proof::root(&hashes) }.to_string();
    assert!(line.ends_with(&root), "{line} {root}");
    let first = nobody.get(&tile(1, 0, 1)).await.unwrap();
    assert_eq!(first.body.as_ref(), proof::root(&hashes[..256]));

    let mut operator = keyed(&scene, "platform", "operator").await;
    let entries = "/-/v1/audit/tile/entries/000";
    assert_eq!(operator.get(entries).await.unwrap().status, StatusCode::FORBIDDEN);
    let mut admin = keyed(&scene, "acme", "admin").await;
    assert!(matches!(admin.get(entries).await.unwrap().status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND));
    for path in ["0/001.p/256", "0/1", "0/999", "63/000", "8/000", "0/../000", "entries/0"] {
        let path = format!("/-/v1/audit/tile/{path}");
        assert!(auditor.get(&path).await.unwrap().status.is_client_error(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_word_in_the_configuration_tiles_are_for_auditors_alone() {
    let scene = Scene::new().unwrap();
    let mut nobody = scene.node.client().await.unwrap();
    let mut auditor = keyed(&scene, "platform", "auditor").await;
    let mut operator = keyed(&scene, "platform", "operator").await;
    for path in ["/-/v1/audit/checkpoint", "/-/v1/audit/tile/0/000.p/1"] {
        assert_eq!(nobody.get(path).await.unwrap().status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(operator.get(path).await.unwrap().status, StatusCode::FORBIDDEN, "{path}");
        let answer = auditor.get(path).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
        assert!(!answer.header("cache-control").contains("public"));
    }
}

/// A receipt for a call of this path.
async fn receipt_of(client: &mut Client, path: &str) -> Result<Receipt, Broken> {
    let answer = client.get(path).await?;
    Ok(answer.header("cofferdam-receipt").parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_redeemed_by_whoever_holds_it_and_the_proof_is_checked_offline() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().header("cofferdam-receipt"), "", "nobody asked");
    let mut asking = scene.alice().await.unwrap().with_header("cofferdam-receipt", "?1");
    let key = scene.site.run(&["audit", "key"]).unwrap();
    let key = key.trim();
    // Held, refused, streamed: each has one.
    for path in ["/acme/hello", "/acme/nothing-here-for-alice", "/acme/faults/slow"] {
        let Ok(receipt) = receipt_of(&mut asking, path).await else {
            assert!(path.contains("nothing"), "{path} has no receipt");
            continue;
        };
        let text = receipt.to_string();
        let proof = scene.node.run(&scene.site, &["audit", "proof", "--receipt", &text]).unwrap();
        let checked = TlogProof::parse(&proof).unwrap().check(key, Some(receipt.leaf)).unwrap();
        assert_eq!(checked.index, receipt.index);
        let file = scene.site.file(&format!("{}.tlog-proof", receipt.index), &proof).unwrap().display().to_string();
        let told = scene.site.run(&["audit", "check-proof", &file, "--key", key]).unwrap();
        assert!(told.contains("OK") && told.contains(&text), "{told}");
        let told = scene.site.run(&["audit", "check-proof", &file, "--key", key, "--receipt", &text]).unwrap();
        assert!(told.contains("OK"), "{told}");

        // Whoever does not know the leaf learns nothing, not even whether there is such a record.
        let mut nobody = scene.node.client().await.unwrap();
        let (mut wrong, far) = (receipt.clone(), Receipt { index: 1 << 40, ..receipt.clone() });
        wrong.leaf[0] ^= 1;
        for guess in [wrong, far, Receipt { index: receipt.index - 1, ..receipt.clone() }] {
            let text = guess.to_string();
            let leaf = text.rsplit(' ').next().unwrap().replace('+', "-").replace('/', "_");
            let path = format!("/-/v1/audit/proof?index={}&leaf={leaf}", guess.index);
            let answer = nobody.call(Method::GET, &path, "").await.unwrap();
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{guess}");
        }
        let other = Receipt { index: receipt.index - 1, ..receipt.clone() }.to_string();
        let refused = scene.site.try_run(&["audit", "check-proof", &file, "--key", key, "--receipt", &other]).unwrap();
        assert_eq!(refused.status.code(), Some(8));
    }
    let receipt = receipt_of(&mut asking, "/acme/hello").await.unwrap();
    assert!(scene.node.stop().unwrap());
    let dir = scene.site.data().join("audit").display().to_string();
    let text = receipt.to_string();
    let proof = scene.site.run(&["audit", "proof", "--log", &dir, "--receipt", &text]).unwrap();
    assert_eq!(
        TlogProof::parse(&format!("{}\n", proof.trim_end())).unwrap().check(key, None).unwrap().leaf,
        receipt.leaf
    );
    // What is derived can be lost.
    std::fs::remove_dir_all(scene.site.data().join("audit/tile")).unwrap();
    let lost = scene.site.try_run(&["audit", "proof", "--log", &dir, "--receipt", &text]).unwrap();
    assert!(String::from_utf8_lossy(&lost.stderr).contains("audit rebuild"));
    assert!(scene.site.run(&["audit", "rebuild"]).unwrap().contains("fit the signed root"));
    assert_eq!(scene.site.run(&["audit", "proof", "--log", &dir, "--receipt", &text]).unwrap(), proof);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_proves_its_records_complete_and_is_told_nothing_of_others() {
    let scene = Scene::with_config(OPEN).unwrap();
    let mut alice = scene.alice().await.unwrap();
    let mut gina = scene.caller("globex", "gina", "invoker").await.unwrap();
    for _ in 0..20 {
        assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
        gina.get("/globex/hello").await.unwrap();
    }
    let mut admin = keyed(&scene, "acme", "admin").await;
    for what in ["checkpoint", "records", "tile/0/000.p/1"] {
        let theirs = admin.get(&format!("/-/v1/tenants/globex/tree/{what}")).await.unwrap();
        assert_eq!(theirs.status, StatusCode::NOT_FOUND, "{what}");
    }
    // Until a checkpoint is over a record of the tenant's root.
    let page = loop {
        let page = admin.get("/-/v1/tenants/acme/tree/records").await.unwrap();
        assert_eq!(page.status, StatusCode::OK, "{}", page.text());
        if !page.json()["roots"].is_null() && page.json()["size"].as_u64() > Some(20) {
            break page.text();
        }
    };
    assert!(!page.contains("gina") && !page.contains("globex"), "{page}");
    let token = scene.site.token("acme", "root", "admin").unwrap();
    let token = scene.site.file("token", token.trim_start_matches("Bearer ")).unwrap().display().to_string();
    let out = scene.site.data().with_file_name("acme.jsonl");
    let file = out.display().to_string();
    let export = ["audit", "tenant-export", "acme", "--out", &file, "--token-file", &token];
    scene.node.run(&scene.site, &export).unwrap();
    let key = scene.site.run(&["audit", "key"]).unwrap();
    let key = key.trim();
    assert!(scene.site.run(&["audit", "check-tenant", &file, "--key", key]).unwrap().contains("OK"));

    // An operator who leaves a record out is found out.
    let whole = std::fs::read_to_string(&out).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    assert!(lines.len() > 21);
    let less: String = lines.iter().enumerate().filter(|(n, _)| *n != 7).map(|(_, line)| format!("{line}\n")).collect();
    assert!(check_tenant(less.as_bytes(), key).is_err());
    let less = scene.site.file("less.jsonl", &less).unwrap().display().to_string();
    let refused = scene.site.try_run(&["audit", "check-tenant", &less, "--key", key]).unwrap();
    assert_eq!(refused.status.code(), Some(8));
}
