//! A plan as a picture in text: tree, DOT, Mermaid.

use std::collections::BTreeMap;
use std::fmt::Write;

use ocm_engine::{Edge, Plan};

struct Step<'p> {
    id: &'p str,
    kind: &'p str,
    label: Option<&'p str>,
}

fn steps(plan: &Plan) -> Vec<Step<'_>> {
    plan.step_names()
        .map(|(id, kind, label)| Step { id, kind, label })
        .collect()
}

/// Graphviz DOT.
pub(crate) fn dot(plan: &Plan) -> String {
    let steps = steps(plan);
    let mut out = String::from(
        "digraph transfer {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n",
    );
    for step in &steps {
        let label = format!("{}\n{}", step.label.unwrap_or(step.id), step.kind);
        let _ = writeln!(
            out,
            "  {} [label=\"{}\"];",
            step.id,
            label
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n")
        );
    }
    for (source, target, edge) in plan.edges() {
        let style = if *edge == Edge::Order {
            " [style=dashed]"
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "  {} -> {}{style};",
            steps[*source].id, steps[*target].id
        );
    }
    out.push_str("}\n");
    out
}

/// Mermaid, as Markdown viewers draw it.
pub(crate) fn mermaid(plan: &Plan) -> String {
    let steps = steps(plan);
    let mut out = String::from("flowchart LR\n");
    for step in &steps {
        // Mermaid has entities for what would end a label.
        let label = step
            .label
            .unwrap_or(step.id)
            .replace('#', "#35;")
            .replace('"', "#quot;")
            .replace('<', "#lt;");
        let _ = writeln!(
            out,
            "  s_{}[\"{label}<br/><small>{}</small>\"]",
            step.id, step.kind
        );
    }
    for (source, target, edge) in plan.edges() {
        let arrow = if *edge == Edge::Order { "-.->" } else { "-->" };
        let _ = writeln!(
            out,
            "  s_{} {arrow} s_{}",
            steps[*source].id, steps[*target].id
        );
    }
    out
}

/// A tree per step that nothing depends on, down to what it needs; a step that was shown already is not opened again.
pub(crate) fn tree(plan: &Plan) -> String {
    let steps = steps(plan);
    let mut needs: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut used = vec![false; steps.len()];
    for (source, target, _) in plan.edges() {
        needs.entry(*target).or_default().push(*source);
        used[*source] = true;
    }
    let mut tree = Tree {
        steps,
        needs,
        shown: vec![false; used.len()],
        out: String::new(),
    };
    for root in (0..used.len()).filter(|step| !used[*step]) {
        tree.step(root, "", "");
    }
    tree.out
}

struct Tree<'p> {
    steps: Vec<Step<'p>>,
    needs: BTreeMap<usize, Vec<usize>>,
    shown: Vec<bool>,
    out: String,
}

impl Tree<'_> {
    /// Writes one step and what it needs, with an own stack: plans may be deeper than ours.
    fn step(&mut self, root: usize, branch: &str, indent: &str) {
        let mut stack = vec![(root, branch.to_owned(), indent.to_owned())];
        while let Some((at, branch, indent)) = stack.pop() {
            let step = &self.steps[at];
            let needs = self.needs.get(&at).cloned().unwrap_or_default();
            let again = std::mem::replace(&mut self.shown[at], true) && !needs.is_empty();
            let label = step
                .label
                .map(|label| format!(" \"{label}\""))
                .unwrap_or_default();
            let more = if again { " …" } else { "" };
            let _ = writeln!(self.out, "{branch}{}{label}  {}{more}", step.id, step.kind);
            if again {
                continue;
            }
            let last = needs.len().saturating_sub(1);
            for (index, need) in needs.into_iter().enumerate().rev() {
                let (fork, below) = if index == last {
                    ("└─ ", "   ")
                } else {
                    ("├─ ", "│  ")
                };
                stack.push((need, format!("{indent}{fork}"), format!("{indent}{below}")));
            }
        }
    }
}
