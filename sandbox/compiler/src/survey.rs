//! One pass over a component's bytes, before anything of it is validated, flattened or compiled.
//!
//! Owns the refusals of bombs: small inputs that cost much later. Its work is linear in the input, its memory in the
//! names there are. Must never build what it counts: a few nested definitions can stand for more than fits anywhere.

use cofferdam_model::limits::component as limits;
use wasmtime_environ::wasmparser::{
    BinaryReaderError, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Encoding, FunctionBody, Instance, Operator, Parser, Payload,
};

use crate::refusal::Refusal;

/// Blocks within each other in one function. The compiler's time grows with the square of it: 50,000 loops within each
/// other, 200 KiB, take it more than a minute. A long `switch` comes to some hundreds.
const NESTING: u64 = 5_000;

/// A module or component whose end has not been seen.
struct Open {
    /// A component, not a module.
    component: bool,
    /// For each component it can name, how many instances one of it comes to.
    components: Vec<u64>,
    /// How many instances it comes to itself, so far.
    instances: u64,
}

/// What has been counted in all.
#[derive(Default)]
struct Counts {
    open: Vec<Open>,
    definitions: u64,
    functions: u64,
}

/// Looks over a component.
pub(crate) fn survey(component: &[u8]) -> Result<(), Refusal> {
    let mut counts = Counts::default();
    for payload in Parser::new(0).parse_all(component) {
        counts.take(&payload.map_err(invalid)?)?;
    }
    Ok(())
}

fn invalid(error: BinaryReaderError) -> Refusal {
    Refusal::Invalid(error.to_string())
}

fn at_most(what: &'static str, needed: u64, allowed: u64) -> Result<(), Refusal> {
    if needed > allowed { Err(Refusal::TooMany { what, needed, allowed }) } else { Ok(()) }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl Counts {
    fn take(&mut self, payload: &Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::Version { encoding, .. } => self.begin(*encoding == Encoding::Component),
            Payload::End(_) => {
                self.end();
                Ok(())
            }
            Payload::TypeSection(types) => at_most("types in one module", types.count().into(), limits::TYPES),
            Payload::CodeSectionStart { count, .. } => {
                self.functions = self.functions.saturating_add(u64::from(*count));
                at_most("functions", self.functions, limits::FUNCTIONS)
            }
            Payload::CodeSectionEntry(body) => function(body),
            Payload::InstanceSection(instances) => {
                for instance in instances.clone() {
                    if matches!(instance.map_err(invalid)?, Instance::Instantiate { .. }) {
                        self.add(1)?;
                    }
                }
                Ok(())
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances.clone() {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance.map_err(invalid)? {
                        let instances = self.instances_of(0, component_index);
                        self.add(instances.saturating_add(1))?;
                    }
                }
                Ok(())
            }
            Payload::ComponentAliasSection(aliases) => {
                aliases.clone().into_iter().try_for_each(|alias| self.alias(&alias.map_err(invalid)?))
            }
            Payload::ComponentImportSection(imports) => imports.clone().into_iter().try_for_each(|import| {
                match import.map_err(invalid)?.ty {
                    // What is handed over could be handed itself; nobody could tell beforehand how much that comes to.
                    ComponentTypeRef::Component(_) => Err(Refusal::ImportsCode),
                    _ => Ok(()),
                }
            }),
            Payload::ComponentExportSection(exports) => exports.clone().into_iter().try_for_each(|export| {
                let export = export.map_err(invalid)?;
                if export.kind == ComponentExternalKind::Component {
                    let instances = self.instances_of(0, export.index);
                    self.name(instances);
                }
                Ok(())
            }),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, component: bool) -> Result<(), Refusal> {
        self.definitions = self.definitions.saturating_add(1);
        at_most("modules and components", self.definitions, limits::DEFINITIONS)?;
        self.open.push(Open { component, components: Vec::new(), instances: 0 });
        at_most("components within each other", number(self.open.len()), limits::DEPTH)
    }

    /// What ended has a name from here on, in what is around it.
    fn end(&mut self) {
        if let Some(Open { component: true, instances, .. }) = self.open.pop() {
            self.name(instances);
        }
    }

    /// Adds instances to what is open.
    fn add(&mut self, instances: u64) -> Result<(), Refusal> {
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        open.instances = open.instances.saturating_add(instances);
        at_most("instances", open.instances, limits::INSTANCES)
    }

    fn name(&mut self, instances: u64) {
        if let Some(open) = self.open.last_mut() {
            open.components.push(instances);
        }
    }

    /// What one of the component comes to that is named `index` so many definitions further out. A name that is not
    /// there is for the validator to refuse.
    fn instances_of(&self, out: u32, index: u32) -> u64 {
        let (Ok(out), Ok(index)) = (usize::try_from(out), usize::try_from(index)) else { return 0 };
        self.open.iter().rev().nth(out).and_then(|open| open.components.get(index)).copied().unwrap_or(0)
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>) -> Result<(), Refusal> {
        match alias {
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                let instances = self.instances_of(*count, *index);
                self.name(instances);
                Ok(())
            }
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => Err(Refusal::ImportsCode),
            _ => Ok(()),
        }
    }
}

fn function(body: &FunctionBody<'_>) -> Result<(), Refusal> {
    at_most("bytes in one function", number(body.range().len()), limits::FUNCTION_BYTES)?;
    let mut locals = 0_u64;
    for group in body.get_locals_reader().map_err(invalid)? {
        let (count, _) = group.map_err(invalid)?;
        locals = locals.saturating_add(count.into());
        at_most("locals in one function", locals, limits::LOCALS)?;
    }
    let mut nesting = 0_u64;
    for operator in body.get_operators_reader().map_err(invalid)? {
        match operator.map_err(invalid)? {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                nesting = nesting.saturating_add(1);
                at_most("blocks within each other", nesting, NESTING)?;
            }
            Operator::End => nesting = nesting.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}
