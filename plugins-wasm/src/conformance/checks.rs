//! The checks of one step type.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ocm_engine::StepType;
use ocm_engine::language::Validator;
use serde_json::{Value as Json, json};

use super::example::{self, ExampleStep};
use super::fixture::Fixture;
use super::source::{Chunks, Data, Feed};
use super::trial::{Ran, Sample, media_type_of};
use super::variants::{leads_somewhere, variants};
use super::{Finding, Kit};
use crate::bindings::ocm::transformer::types;
use crate::description::StepDescription;

/// Bytes of made-up inputs where their number does not matter: more than two chunks of any size but the largest.
const SOME: u64 = 40_007;
/// Bytes of made-up inputs that break off in the middle.
const BREAKING: u64 = 1 << 20;
/// Inputs above this many bytes are not handed over byte by byte: it would take too long.
const BYTE_BY_BYTE: u64 = 1 << 20;

/// One step type under test.
pub(super) struct Trials<'k> {
    kit: &'k Kit,
    step: &'k StepDescription,
    types: &'k [Arc<dyn StepType>],
    step_type: Arc<dyn StepType>,
    /// Fields that a spec of it can have, ports among them.
    fields: Vec<&'k str>,
    /// Most memory of any call, in bytes, and a call that wanted more than there is.
    memory: (usize, Option<String>),
    /// What calls that ended by themselves wrote to standard output and error.
    printed: Option<String>,
    /// Errors that were told, and the first that is not as it should be.
    errors: (usize, Option<String>),
}

type Inputs = BTreeMap<String, Feed>;

impl<'k> Trials<'k> {
    pub(super) fn new(
        kit: &'k Kit,
        step: &'k StepDescription,
        types: &'k [Arc<dyn StepType>],
        step_type: Arc<dyn StepType>,
    ) -> Self {
        let properties = step.spec_schema.get("properties").and_then(Json::as_object);
        let ports = step.inputs.iter().map(|port| port.name.as_str());
        let properties = properties.into_iter().flat_map(|fields| fields.keys());
        Self {
            kit,
            step,
            types,
            step_type,
            fields: properties.map(String::as_str).chain(ports).collect(),
            memory: (0, None),
            printed: None,
            errors: (0, None),
        }
    }

    /// All checks, in the order of [`super::CHECKS`].
    pub(super) async fn all(&mut self) -> Vec<(&'static str, Finding)> {
        let (examples, mut samples) = self.examples();
        let (fixtures, tested) = self.fixtures().await;
        samples.splice(0..0, tested);
        let mut findings = vec![("examples", examples), ("fixtures", fixtures)];
        let sample = samples.into_iter().next().or_else(|| self.empty());
        let Some(sample) = sample else {
            for name in [
                "sizes",
                "chunks",
                "deterministic",
                "broken-source",
                "early-reader",
                "memory",
                "errors",
                "quiet",
            ] {
                let reason =
                    "there is no fixture, and no example without expressions besides its ports";
                findings.push((name, Finding::Skipped(reason.to_owned())));
            }
            return findings;
        };
        findings.push(("sizes", self.sizes(&sample).await));
        findings.push(("chunks", self.chunks(&sample).await));
        findings.push(("deterministic", self.deterministic(&sample).await));
        findings.push(("broken-source", self.broken_source(&sample).await));
        findings.push(("early-reader", self.early_reader(&sample).await));
        let errors = self.wrong_specs(&sample).await;
        findings.push(("memory", self.memory()));
        findings.push(("errors", errors));
        findings.push(("quiet", self.quiet()));
        findings
    }

    async fn run(&mut self, id: &str, spec: &Json, inputs: &Inputs, keep: bool) -> Ran {
        let ran = self.kit.run(&self.step_type, id, spec, inputs, keep).await;
        for call in &ran.calls {
            self.memory.0 = self.memory.0.max(call.memory);
            if let Some(broke) = call.broke.as_ref().filter(|_| call.broke_limit())
                && broke.to_string().contains("memory limit")
            {
                self.memory.1.get_or_insert(broke.to_string());
            }
            // What a crash has to say goes to standard error, and is right there.
            if call.broke.is_none() && call.printed.0 > 0 {
                self.printed.get_or_insert(call.printed.1.clone());
            }
            for error in &call.told {
                self.errors.0 += 1;
                if let Err(wrong) = self.is_well_told(error, spec) {
                    self.errors.1.get_or_insert(wrong);
                }
            }
        }
        ran
    }

    fn is_well_told(&self, error: &types::StepError, spec: &Json) -> Result<(), String> {
        if error.message.trim().is_empty() {
            return Err(format!("an error has no message (spec {})", short(spec)));
        }
        let message = &error.message;
        if let Some(field) = &error.field
            && !leads_somewhere(field, spec, &self.fields)
        {
            return Err(format!(
                "`{message}` is about the field `{field}`, which leads nowhere in {}",
                short(spec)
            ));
        }
        let is_port = |name: &str| {
            let ports = self.step.inputs.iter().chain(&self.step.outputs);
            ports.into_iter().any(|port| port.name == name)
        };
        match &error.port {
            Some(port) if !is_port(port) => Err(format!(
                "`{message}` is about the port `{port}`, which `{}` does not have",
                self.step.name
            )),
            _ => Ok(()),
        }
    }

    fn examples(&self) -> (Finding, Vec<Sample>) {
        let mut samples = Vec::new();
        for (at, text) in self.step.examples.iter().enumerate() {
            let name = format!("example {}", at + 1);
            let steps = match example::plan(&name, text, &BTreeSet::new(), self.types) {
                Ok(steps) => steps,
                Err(error) => return (Finding::Fail(error), Vec::new()),
            };
            if !steps.iter().any(|step| step.step_type == self.step.name) {
                let message = format!("{name} has no step of the type `{}`", self.step.name);
                return (Finding::Fail(message), Vec::new());
            }
            let own = steps
                .into_iter()
                .filter(|step| step.step_type == self.step.name);
            samples.extend(own.filter_map(|step| {
                Some(Sample {
                    from: name.clone(),
                    spec: step.spec?,
                    inputs: BTreeMap::new(),
                })
            }));
        }
        let finding = match self.step.examples.len() {
            0 => Finding::Skipped("it has none".to_owned()),
            count => Finding::Pass(format!("{count} fit")),
        };
        (finding, samples)
    }

    /// The empty spec, where that is one.
    fn empty(&self) -> Option<Sample> {
        let validator = Validator::new(&self.step.spec_schema).ok()?;
        let spec = json!({});
        let fits = validator.validate_value(&spec).is_empty();
        fits.then(|| Sample {
            from: "an empty spec".to_owned(),
            spec,
            inputs: BTreeMap::new(),
        })
    }

    async fn fixtures(&mut self) -> (Finding, Vec<Sample>) {
        let kit = self.kit;
        let mut samples = Vec::new();
        let mut count = 0;
        for fixture in &kit.options.fixtures {
            if fixture.step_type() != self.step.name {
                continue;
            }
            count += 1;
            match self.fixture(fixture).await {
                Ok(sample) => samples.extend(sample),
                Err(wrong) => {
                    let message = format!("`{}`: {wrong}", fixture.name);
                    return (Finding::Fail(message), samples);
                }
            }
        }
        let finding = match (count, kit.options.bless) {
            (0, _) => Finding::Skipped("there are none".to_owned()),
            (count, false) => Finding::Pass(format!("{count} give what they must")),
            (count, true) => Finding::Pass(format!("{count} written")),
        };
        (finding, samples)
    }

    /// Runs a fixture and compares or writes; gives a sample of those that are not to be refused.
    async fn fixture(&mut self, fixture: &Fixture) -> Result<Option<Sample>, String> {
        let spec = self.fixture_spec(fixture)?;
        let sample = Sample {
            from: format!("fixture `{}`", fixture.name),
            spec,
            inputs: fixture.inputs.clone(),
        };
        let inputs = self.given(&sample);
        let ran = self.run("test1", &sample.spec, &inputs, true).await;
        match &ran.result {
            Ok((output, outputs)) if self.kit.options.bless && fixture.error.is_none() => {
                fixture
                    .bless(output, outputs)
                    .map_err(|error| error.to_string())?;
                Ok(Some(sample))
            }
            Ok(_) if fixture.is_open() => Err(
                "nothing says what it must give: look at it, and write that with --bless"
                    .to_owned(),
            ),
            Ok((output, outputs)) => fixture.compare(output, outputs).map(|()| Some(sample)),
            Err(error) => {
                let refusal = ran.calls.iter().flat_map(|call| &call.told).next();
                let (Some(expected), Some(refusal)) =
                    (&fixture.error, refusal.filter(|_| ran.is_refusal()))
                else {
                    return Err(error.to_string());
                };
                let refusal = refused(refusal);
                if self.kit.options.bless {
                    fixture
                        .bless_error(&refusal)
                        .map_err(|error| error.to_string())?;
                } else if refusal != *expected {
                    return Err(format!(
                        "it is refused with {refusal}, error.json has {expected}"
                    ));
                }
                Ok(None)
            }
        }
    }

    fn fixture_spec(&self, fixture: &Fixture) -> Result<Json, String> {
        let given: BTreeSet<&str> = fixture.inputs.keys().map(String::as_str).collect();
        for port in &given {
            if !self.step.inputs.iter().any(|known| known.name == *port) {
                let message = format!("in/{port}: `{}` has no such input", self.step.name);
                return Err(message);
            }
        }
        let missing = self
            .step
            .inputs
            .iter()
            .find(|port| port.required && !given.contains(port.name.as_str()));
        if let Some(port) = missing {
            return Err(format!("there is no in/{}", port.name));
        }
        let steps = example::plan("step.yaml", &fixture.step, &given, self.types)?;
        match steps.as_slice() {
            [
                ExampleStep {
                    spec: Some(spec), ..
                },
            ] => Ok(spec.clone()),
            [_] => Err("step.yaml has expressions besides those of its ports".to_owned()),
            steps => Err(format!("step.yaml has {} steps, not one", steps.len())),
        }
    }

    /// The inputs of a sample as they are, in plain chunks.
    fn given(&self, sample: &Sample) -> Inputs {
        let inputs = sample.inputs.iter();
        inputs
            .map(|(port, bytes)| {
                let data = Data::given(bytes.clone());
                (port.clone(), self.feed(port, data))
            })
            .collect()
    }

    fn feed(&self, port: &str, data: Data) -> Feed {
        Feed::new(data, &media_type_of(self.step, port))
    }

    /// Made-up inputs: all that must be there, and those of the sample.
    fn made(&self, sample: &Sample, length: u64) -> Inputs {
        let ports = self.step.inputs.iter();
        ports
            .filter(|port| port.required || sample.inputs.contains_key(&port.name))
            .map(|port| {
                let data = Data::made(&self.kit.piece, length);
                (port.name.clone(), self.feed(&port.name, data))
            })
            .collect()
    }

    /// The inputs of a sample, or made-up ones.
    fn inputs(&self, sample: &Sample, length: u64) -> Inputs {
        match sample.inputs.is_empty() {
            true => self.made(sample, length),
            false => self.given(sample),
        }
    }

    async fn sizes(&mut self, sample: &Sample) -> Finding {
        if self.made(sample, 0).is_empty() {
            return Finding::Skipped("it has no inputs".to_owned());
        }
        let window = self.kit.host.limits().window as u64;
        let large = self.kit.options.large;
        let (mut done, mut refused) = (0, Vec::new());
        for size in [0, 1, window - 1, window, window + 1, large] {
            let inputs = self.made(sample, size);
            let ran = self.run("test1", &sample.spec, &inputs, false).await;
            match &ran.result {
                Ok(_) => done += 1,
                Err(error) if ran.is_refusal() => refused.push(error.to_string()),
                Err(error) => return Finding::Fail(format!("{size} bytes: {error}")),
            }
        }
        Finding::Pass(match refused.last() {
            None => format!("{done} sizes up to {large} bytes"),
            Some(last) => format!("{done} done, {} refused, as in: {last}", refused.len()),
        })
    }

    async fn chunks(&mut self, sample: &Sample) -> Finding {
        if !self.step.deterministic {
            return Finding::Skipped("it does not call itself deterministic".to_owned());
        }
        let inputs = self.inputs(sample, SOME);
        let length: u64 = inputs.values().map(|feed| feed.data.length).sum();
        if length < 2 {
            return Finding::Skipped("there are no bytes to cut into chunks".to_owned());
        }
        let first = self.run("test1", &sample.spec, &inputs, false).await;
        if let Some(finding) = unusable(&first, sample) {
            return finding;
        }
        for (name, chunks) in [
            ("of 1 byte", Chunks::Of(1)),
            ("of 7 bytes", Chunks::Of(7)),
            ("of 4096 bytes", Chunks::Of(4096)),
            ("of random sizes", Chunks::Random),
        ] {
            if matches!(chunks, Chunks::Of(1)) && length > BYTE_BY_BYTE {
                continue;
            }
            let mut cut = inputs.clone();
            cut.values_mut().for_each(|feed| feed.chunks = chunks);
            let ran = self.run("test1", &sample.spec, &cut, false).await;
            if ran.outcome() != first.outcome() {
                return Finding::Fail(format!(
                    "chunks {name} gave {}, larger ones {}",
                    ran.outcome(),
                    first.outcome()
                ));
            }
        }
        Finding::Pass(format!("{length} bytes ({})", sample.from))
    }

    async fn deterministic(&mut self, sample: &Sample) -> Finding {
        if !self.step.deterministic {
            return Finding::Skipped("it does not call itself so".to_owned());
        }
        if !self.step_type.info().deterministic {
            return Finding::Skipped("with a right no step is".to_owned());
        }
        let inputs = self.inputs(sample, SOME);
        let first = self.run("test1", &sample.spec, &inputs, false).await;
        if let Some(finding) = unusable(&first, sample) {
            return finding;
        }
        // What is random follows from the step's id.
        let again = self.run("test2", &sample.spec, &inputs, false).await;
        if again.outcome() != first.outcome() {
            return Finding::Fail(format!(
                "it gave {}, then {}",
                first.outcome(),
                again.outcome()
            ));
        }
        Finding::Pass(sample.from.clone())
    }

    async fn broken_source(&mut self, sample: &Sample) -> Finding {
        let whole = self.inputs(sample, BREAKING);
        let mut met = Vec::new();
        for (port, feed) in &whole {
            if feed.data.length < 2 {
                continue;
            }
            let mut inputs = whole.clone();
            if let Some(feed) = inputs.get_mut(port) {
                feed.breaks_at = Some(feed.data.length / 2);
            }
            let ran = self.run("test1", &sample.spec, &inputs, false).await;
            if let Some(wrong) = broken_badly(&ran, port) {
                return Finding::Fail(wrong);
            }
            // Handed on unchanged, it breaks for who reads it.
            let is_broken = |message: String| message.contains("the source broke off");
            let met_by_reader = ran
                .result
                .as_ref()
                .is_err_and(|error| is_broken(error.to_string()));
            if met_by_reader || ran.calls.iter().any(|call| call.failed_input.is_some()) {
                met.push(format!("`{port}`"));
            }
        }
        match met.is_empty() {
            true => Finding::Skipped("it read no input that far".to_owned()),
            false => Finding::Pass(met.join(", ")),
        }
    }

    async fn early_reader(&mut self, sample: &Sample) -> Finding {
        if self.step.outputs.is_empty() {
            return Finding::Skipped("it has no outputs".to_owned());
        }
        let large = self.made(sample, self.kit.options.large);
        for inputs in [large, self.given(sample)] {
            let left = self
                .kit
                .leave_early(&self.step_type, &sample.spec, &inputs)
                .await;
            match left {
                Ok(true) => return Finding::Pass("it ended by itself".to_owned()),
                Ok(false) => {}
                Err(wrong) if wrong.contains("its reader") => return Finding::Fail(wrong),
                // Refused, as other checks tell.
                Err(_) => {}
            }
        }
        Finding::Skipped("its outputs were done before anybody could leave".to_owned())
    }

    /// Specs that fit the schema and may be wrong nevertheless.
    async fn wrong_specs(&mut self, sample: &Sample) -> Finding {
        let all = variants(&self.step.spec_schema, &sample.spec);
        let inputs = self.inputs(sample, SOME);
        for spec in &all {
            let ran = self.run("test1", spec, &inputs, false).await;
            if let Err(error) = &ran.result
                && !ran.is_refusal()
            {
                return Finding::Fail(format!("with the spec {}: {error}", short(spec)));
            }
        }
        match &self.errors {
            (_, Some(wrong)) => Finding::Fail(wrong.clone()),
            (0, None) => Finding::Skipped(format!("none of {} specs was refused", all.len())),
            (count, None) => Finding::Pass(format!("{count} errors, {} specs", all.len())),
        }
    }

    fn memory(&self) -> Finding {
        let limit = self.kit.host.limits().memory >> 20;
        match &self.memory {
            (_, Some(wrong)) => Finding::Fail(wrong.clone()),
            (most, None) => Finding::Pass(format!("at most {} KiB of {limit} MiB", most >> 10)),
        }
    }

    fn quiet(&self) -> Finding {
        match &self.printed {
            Some(text) => Finding::Fail(format!(
                "it wrote: {}",
                crate::limits::cut(text.clone(), 200)
            )),
            None => Finding::Pass("nothing".to_owned()),
        }
    }
}

/// Why a first run is nothing to compare others with.
fn unusable(ran: &Ran, sample: &Sample) -> Option<Finding> {
    let error = ran.result.as_ref().err()?;
    Some(match ran.is_refusal() && sample.inputs.is_empty() {
        true => Finding::Skipped(format!(
            "it refuses made-up bytes ({error}): a fixture with inputs would do"
        )),
        false => Finding::Fail(format!("{}: {error}", sample.from)),
    })
}

/// What a plugin did wrong when an input broke off.
fn broken_badly(ran: &Ran, port: &str) -> Option<String> {
    for call in &ran.calls {
        if let Some(broke) = &call.broke {
            return Some(format!("`{port}` broke off, and {broke}"));
        }
        let failed = call.failed_input.is_some();
        if call.is_well && failed {
            return Some(format!(
                "it said that all is well when `{port}` had broken off"
            ));
        }
        let told = call.told.first().filter(|_| failed);
        if let Some(told) = told.filter(|told| told.kind != types::ErrorKind::ContentIo) {
            return Some(format!(
                "it told that `{port}` broke off as {}, not as content-io: {}",
                kind(told.kind),
                told.message
            ));
        }
    }
    None
}

fn kind(kind: types::ErrorKind) -> &'static str {
    match kind {
        types::ErrorKind::InvalidSpec => "invalid-spec",
        types::ErrorKind::InvalidContent => "invalid-content",
        types::ErrorKind::Denied => "denied",
        types::ErrorKind::Unavailable => "unavailable",
        types::ErrorKind::ContentIo => "content-io",
        types::ErrorKind::Internal => "internal",
    }
}

/// A refusal as `error.json` has it.
fn refused(error: &types::StepError) -> Json {
    let mut document = serde_json::Map::new();
    document.insert("kind".into(), kind(error.kind).into());
    document.insert("message".into(), error.message.clone().into());
    let texts = [
        ("field", &error.field),
        ("port", &error.port),
        ("hint", &error.hint),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            document.insert(name.into(), text.clone().into());
        }
    }
    if let Some(offset) = error.offset {
        document.insert("offset".into(), offset.into());
    }
    Json::Object(document)
}

fn short(spec: &Json) -> String {
    crate::limits::cut(spec.to_string(), 200)
}
