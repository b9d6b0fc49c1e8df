//! Kafka's jars, fetched once through Maven into the cache folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// The version lives in the pom alone.
const POM: &str = include_str!("../../../kafka/pom.xml");

/// The version of Apache Kafka that [`fetch`] gets.
pub fn version() -> Result<&'static str> {
    let (_, rest) = POM.split_once("<kafka.version>").context("pom.xml names no kafka.version")?;
    let (version, _) = rest.split_once('<').context("pom.xml ends within kafka.version")?;
    Ok(version)
}

/// The folder of jars; fetches them if it is not there.
pub fn fetch() -> Result<PathBuf> {
    let cache = crate::cache_dir()?;
    let jars = cache.join(format!("kafka-{}", version()?));
    if !jars.is_dir() {
        eprintln!("fetching Apache Kafka {} through Maven", version()?);
        fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
        fetch_into(&cache, &jars)?;
    }
    Ok(jars)
}

/// The folder appears whole or not at all, so that test processes may race for it.
fn fetch_into(cache: &Path, jars: &Path) -> Result<()> {
    let work = tempfile::Builder::new().prefix("kafka-fetch-").tempdir_in(cache)?;
    fs::write(work.path().join("pom.xml"), POM)?;
    let copied = work.path().join("jars");
    let output = Command::new("mvn")
        .args(["--batch-mode", "--quiet", "dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", copied.display()))
        .current_dir(work.path())
        .output()
        .context("running mvn (Maven fetches Kafka's jars)")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("mvn ended with {}:\n{}", output.status, String::from_utf8_lossy(&said));
    }
    let broker = format!("kafka_2.13-{}.jar", version()?);
    ensure!(copied.join(&broker).is_file(), "mvn copied no {broker}");
    match fs::rename(&copied, jars) {
        Err(_) if jars.is_dir() => Ok(()), // another process was faster
        moved => moved.with_context(|| format!("moving the jars to {}", jars.display())),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_pom_names_a_version_of_the_3_9_line() {
        assert!(super::version().unwrap().starts_with("3.9."));
    }
}
