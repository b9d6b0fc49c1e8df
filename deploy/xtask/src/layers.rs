//! The order of the layers: a crate depends on crates of its own layer or of lower ones, never upwards.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Top-level folders, lowest first.
pub const ORDER: [&str; 7] = ["schemas", "sources", "operators", "sinks", "pipelines", "query", "api"];

/// Folders beside the layers: they may use any layer, but no layer uses them.
pub const BESIDE: [&str; 2] = ["benchmarks", "deploy"];

/// The one crate beside the layers that tests may use: it starts a real Kafka.
const TEST_TOOL: &str = "xtask";

#[derive(Debug, Deserialize)]
struct Metadata {
    workspace_root: String,
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build` or none.
    kind: Option<String>,
    /// Only dependencies within the workspace have one.
    path: Option<String>,
}

/// Asks cargo for the workspace's crates and names every dependency that breaks the order.
pub fn check() -> Result<Vec<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    violations(&serde_json::from_slice(&output.stdout).context("reading cargo metadata")?)
}

fn violations(metadata: &Metadata) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    let mut folders = BTreeMap::new();
    for package in &metadata.packages {
        let folder = Path::new(&package.manifest_path)
            .strip_prefix(&metadata.workspace_root)?
            .components()
            .next()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .unwrap_or_default();
        if rank(&folder).is_none() && !BESIDE.contains(&folder.as_str()) {
            violations.push(format!("{} is in {folder}, which is no layer", package.name));
        }
        folders.insert(package.name.as_str(), folder);
    }
    for package in &metadata.packages {
        let from = &folders[package.name.as_str()];
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            let Some(to) = folders.get(dependency.name.as_str()) else { continue };
            let is_test = dependency.kind.as_deref() == Some("dev");
            if is_test && dependency.name == TEST_TOOL {
                continue;
            }
            let allowed = match (rank(from), rank(to)) {
                (Some(from), Some(to)) => to <= from,
                (Some(_), None) => false,
                (None, _) => true,
            };
            if !allowed {
                violations.push(format!(
                    "{} ({from}) depends on {} ({to}){}",
                    package.name,
                    dependency.name,
                    if is_test { " in its tests" } else { "" },
                ));
            }
        }
    }
    Ok(violations)
}

fn rank(folder: &str) -> Option<usize> {
    ORDER.iter().position(|layer| *layer == folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_keeps_the_order() {
        assert_eq!(check().unwrap(), Vec::<String>::new());
    }

    fn package(name: &str, folder: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency {
                name: (*name).to_owned(),
                kind: kind.map(str::to_owned),
                path: Some(String::new()),
            })
            .collect();
        Package { name: name.to_owned(), manifest_path: format!("/w/{folder}/Cargo.toml"), dependencies }
    }

    #[test]
    fn upward_and_sideways_dependencies_are_named() {
        let metadata = Metadata {
            workspace_root: "/w".to_owned(),
            packages: vec![
                package("low", "schemas", &[("high", None), ("xtask", Some("dev"))]),
                package("middle", "sinks/inner", &[("low", None), ("bench", Some("dev")), ("xtask", Some("build"))]),
                package("high", "api", &[("middle", None), ("low", Some("dev"))]),
                package("bench", "benchmarks", &[("high", None)]),
                package("xtask", "deploy/xtask", &[]),
                package("stray", "utils", &[]),
            ],
        };
        assert_eq!(
            violations(&metadata).unwrap(),
            [
                "stray is in utils, which is no layer",
                "low (schemas) depends on high (api)",
                "middle (sinks) depends on bench (benchmarks) in its tests",
                "middle (sinks) depends on xtask (deploy)",
            ]
        );
    }
}
