//! What a component asks for and what it consists of, before any of it is compiled.
//!
//! Owns the refusals that need no compiler: not a component, no handler, too much of something. Must never trust a
//! count the component states itself: everything is counted from its flattened instantiation.

use cofferdam_model::FunctionLimits;
use cofferdam_model::limits::component as limits;
use serde::Serialize;
use wasmtime::Engine;
use wasmtime_environ::component::{
    Component, ComponentTranslation, ComponentTypesBuilder, Export, ExportIndex, GlobalInitializer, InstantiateModule,
    StaticModuleIndex, Translator, TypeDef,
};
use wasmtime_environ::wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};
use wasmtime_environ::{Module, ModuleTranslation, PrimaryMap, ScopeVec, Tunables};

use crate::interfaces::GIVEN;
use crate::refusal::Refusal;
use crate::survey::survey;

/// The one interface a function must offer, whatever the patch version.
const HANDLER: &str = "wasi:http/incoming-handler@0.2.";

/// What a component asks for and consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Needs {
    /// Names of what it imports, sorted.
    pub(crate) imports: Vec<String>,
    /// Names of what it exports, sorted.
    pub(crate) exports: Vec<String>,
    /// Core instances.
    pub(crate) core_instances: u64,
    /// Linear memories of all of them.
    pub(crate) memories: u64,
    /// Bytes those memories start with, summed.
    pub(crate) memory_bytes: u64,
    /// Tables of all of them.
    pub(crate) tables: u64,
    #[serde(skip)]
    handler: bool,
}

/// Reads a component and refuses what can be refused without compiling it.
pub(crate) fn inspect(component: &[u8]) -> Result<Needs, Refusal> {
    if Engine::detect_precompiled(component).is_some() {
        return Err(Refusal::Precompiled);
    }
    match Parser::new(0).parse_all(component).next() {
        Some(Ok(Payload::Version { encoding: Encoding::Component, .. })) => {}
        Some(Ok(Payload::Version { encoding: Encoding::Module, .. })) => return Err(Refusal::CoreModule),
        _ => return Err(Refusal::NotWasm),
    }
    survey(component)?;
    let invalid = |error: &dyn std::fmt::Display| Refusal::Invalid(format!("{error:#}"));
    // Wider than the profile: this only counts. Whether the features used are allowed, the compiler says.
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let mut types = ComponentTypesBuilder::new(&validator);
    let tunables = Tunables::default_host();
    let scope = ScopeVec::new();
    let (translation, modules) = Translator::new(&tunables, &mut validator, &mut types, &scope)
        .translate(component)
        .map_err(|error| invalid(&error))?;
    let needs = needs(&translation, &modules)?;
    check(&needs)?;
    Ok(needs)
}

type Modules<'a> = PrimaryMap<StaticModuleIndex, ModuleTranslation<'a>>;

fn needs(translation: &ComponentTranslation, modules: &Modules<'_>) -> Result<Needs, Refusal> {
    let component = &translation.component;
    let mut needs = Needs::default();
    for (name, item) in component.import_types.values() {
        if matches!(item.ty, TypeDef::Component(_) | TypeDef::Module(_)) {
            return Err(Refusal::ImportsCode);
        }
        needs.imports.push(name.clone());
    }
    for (name, (index, _)) in component.exports.raw_iter() {
        let name = name.to_string();
        needs.handler |= name.starts_with(HANDLER) && has_handle(component, *index);
        needs.exports.push(name);
    }
    needs.imports.sort_unstable();
    needs.exports.sort_unstable();
    for step in &component.initializers {
        let GlobalInitializer::InstantiateModule(module, _) = step else { continue };
        let InstantiateModule::Static(index, _) = module else { return Err(Refusal::ImportsCode) };
        if let Some(translation) = modules.get(*index) {
            count(&mut needs, &translation.module)?;
        }
    }
    Ok(needs)
}

fn has_handle(component: &Component, index: ExportIndex) -> bool {
    match component.export_items.get(index) {
        Some(Export::Instance { exports, .. }) => exports.raw_iter().any(|(name, _)| name.to_string() == "handle"),
        _ => false,
    }
}

/// Adds one instantiation of one module.
fn count(needs: &mut Needs, module: &Module) -> Result<(), Refusal> {
    needs.core_instances += 1;
    for memory in module.memories.values().skip(module.num_imported_memories) {
        needs.memories += 1;
        needs.memory_bytes = needs.memory_bytes.saturating_add(memory.minimum_byte_size().unwrap_or(u64::MAX));
    }
    for (number, table) in (1..).zip(module.tables.values().skip(module.num_imported_tables)) {
        needs.tables += 1;
        at_most("elements in a table", table.limits.min, limits::TABLE_ELEMENTS)?;
        at_most("tables in one module", number, limits::TABLES_PER_MODULE.into())?;
    }
    Ok(())
}

fn check(needs: &Needs) -> Result<(), Refusal> {
    if !needs.handler {
        return Err(Refusal::NoHandler);
    }
    at_most("core instances", needs.core_instances, limits::CORE_INSTANCES.into())?;
    at_most("memories", needs.memories, limits::MEMORIES.into())?;
    at_most("bytes of initial memory", needs.memory_bytes, FunctionLimits::ceiling().memory_bytes)?;
    at_most("tables", needs.tables, limits::TABLES.into())?;
    at_most("imports", u64::try_from(needs.imports.len()).unwrap_or(u64::MAX), limits::IMPORTS)?;
    match needs.imports.iter().find(|name| !is_given(name)) {
        Some(name) => Err(Refusal::UnknownImport(name.chars().take(200).collect())),
        None => Ok(()),
    }
}

/// Whether a worker links the interface, be it to an implementation that denies. Whatever else a component imports
/// could only fail at its first call.
fn is_given(import: &str) -> bool {
    import.split_once("@0.2.").is_some_and(|(interface, _)| GIVEN.contains(&interface))
}

fn at_most(what: &'static str, needed: u64, allowed: u64) -> Result<(), Refusal> {
    if needed > allowed { Err(Refusal::TooMany { what, needed, allowed }) } else { Ok(()) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The smallest component that offers a handler, with `more` in it.
    pub(crate) fn handler(more: &str) -> Vec<u8> {
        component("wasi:http/incoming-handler@0.2.12", "handle", more)
    }

    fn component(interface: &str, function: &str, more: &str) -> Vec<u8> {
        let text = format!(
            r#"(component
                {more}
                (core module $guest (func (export "run")))
                (core instance $guest (instantiate $guest))
                (func $run (canon lift (core func $guest "run")))
                (instance (export "{interface}") (export "{function}" (func $run))))"#
        );
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in [b"".as_slice(), b"\0", b"\0asm", b"PK\x03\x04", &[0xff; 4096]] {
            assert_eq!(inspect(bytes), Err(Refusal::NotWasm));
        }
    }

    #[test]
    fn text_is_refused() {
        assert_eq!(inspect(b"(component)"), Err(Refusal::NotWasm));
    }

    #[test]
    fn a_core_module_is_refused() {
        assert_eq!(inspect(&wat::parse_str("(module)").unwrap()), Err(Refusal::CoreModule));
    }

    #[test]
    fn a_component_without_a_handler_is_refused() {
        assert_eq!(inspect(&wat::parse_str("(component)").unwrap()), Err(Refusal::NoHandler));
        for (interface, function) in [
            ("wasi:http/incoming-handler@0.3.0", "handle"),
            ("wasi:http/outgoing-handler@0.2.0", "handle"),
            ("wasi:http/incoming-handler@0.2.0", "other"),
        ] {
            assert_eq!(inspect(&component(interface, function, "")), Err(Refusal::NoHandler), "{interface} {function}");
        }
        assert!(inspect(&handler("")).is_ok());
    }

    #[test]
    fn a_truncated_or_damaged_component_is_refused_not_a_panic() {
        let whole = handler(r#"(core module (memory 1) (data (i32.const 0) "x"))"#);
        // The names of things come last and may be missing altogether; nothing else may.
        let taken: Vec<usize> = (0..whole.len()).filter(|cut| inspect(&whole[..*cut]).is_ok()).collect();
        assert!(taken.len() <= 1, "cut at {taken:?}");
        for index in 8..whole.len() {
            let mut damaged = whole.clone();
            damaged[index] ^= 0x55;
            // Some damage is harmless (in a name, say); none may end the process.
            drop(inspect(&damaged));
        }
    }

    #[test]
    fn instantiations_are_counted_not_definitions() {
        let doubled = "(core module $m (memory 2) (table 3 funcref))
            (core instance (instantiate $m)) (core instance (instantiate $m))";
        let needs = inspect(&handler(doubled)).unwrap();
        assert_eq!((needs.core_instances, needs.memories, needs.tables), (3, 2, 2));
        assert_eq!(needs.memory_bytes, 4 * 65_536);
    }

    #[test]
    fn nested_instantiations_multiply_and_are_refused_when_too_many() {
        let nested = r#"(component $a (core module $m (memory 1)) (core instance (instantiate $m)))
            (component $b (alias outer 1 $a (component $a)) (instance (instantiate $a)) (instance (instantiate $a)))
            (component $c (alias outer 1 $b (component $b)) (instance (instantiate $b)) (instance (instantiate $b)))
            (instance (instantiate $c)) (instance (instantiate $c))"#;
        let refused = inspect(&handler(nested));
        assert_eq!(refused, Err(Refusal::TooMany { what: "memories", needed: 8, allowed: 4 }));
    }

    #[test]
    fn too_much_of_anything_is_refused() {
        let many = |what: &str, count: usize| (0..count).map(|_| what).collect::<String>();
        for (what, more) in [
            ("core instances", format!("(core module $m) {}", many("(core instance (instantiate $m))", 64))),
            ("bytes of initial memory", "(core module $m (memory 65536)) (core instance (instantiate $m))".into()),
            ("elements in a table", "(core module $m (table 100001 funcref)) (core instance (instantiate $m))".into()),
            (
                "tables in one module",
                format!("(core module $m {}) (core instance (instantiate $m))", many("(table 1 funcref)", 5)),
            ),
            ("tables", format!("(core module $m (table 1 funcref)) {}", many("(core instance (instantiate $m))", 33))),
            ("imports", (0..257).map(|n| format!(r#"(import "i{n}" (func))"#)).collect()),
        ] {
            match inspect(&handler(&more)) {
                Err(Refusal::TooMany { what: found, .. }) => assert_eq!(found, what),
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_component_that_wants_to_be_handed_code_is_refused() {
        let strange = inspect(&handler(r#"(import "strange:host/shell@0.2.0" (instance))"#));
        assert_eq!(strange, Err(Refusal::UnknownImport("strange:host/shell@0.2.0".into())));
        let unknown = inspect(&handler(r#"(import "wasi:http/proxy-of-another@0.2.0" (instance))"#));
        assert_eq!(unknown, Err(Refusal::UnknownImport("wasi:http/proxy-of-another@0.2.0".into())));
        let later = inspect(&handler(r#"(import "wasi:http/types@0.3.0" (instance))"#));
        assert_eq!(later, Err(Refusal::UnknownImport("wasi:http/types@0.3.0".into())));
        let imports = r#"(import "m" (core module))"#;
        assert_eq!(inspect(&handler(imports)), Err(Refusal::ImportsCode));
    }
}
