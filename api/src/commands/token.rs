//! `companyos token create`: a token for whoever will use it, its digest for the configuration.

use std::{collections::BTreeSet, process::ExitCode, str::FromStr};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand, ValueEnum};
use companyos_schemas::access::{Permission, Scope, TokenGrant, token_digest};
use serde::Serialize;

/// Token tools.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it once, with the entry for [[access.tokens]]
    Create(CreateArgs),
}

/// What the token is for.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Tenant it reaches
    #[arg(long)]
    tenant: String,
    /// What it allows; repeatable
    #[arg(long = "permission", required = true, value_enum)]
    permissions: Vec<PermissionArg>,
    /// Environment it is limited to; repeatable, all of the tenant's if none is given
    #[arg(long = "env")]
    envs: Vec<String>,
    /// Region it is limited to; repeatable, all of the tenant's if none is given
    #[arg(long = "region")]
    regions: Vec<String>,
    /// Name for logs and audit; made up if not given
    #[arg(long)]
    id: Option<String>,
    /// How long it works, such as 90days; for ever if not given
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<Lifetime>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PermissionArg {
    /// Send events
    Ingest,
    /// Run SQL
    Query,
    /// Make and drop views
    Operate,
}

#[derive(Debug, Clone, Copy)]
struct Lifetime(std::time::Duration);

impl FromStr for Lifetime {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self)
    }
}

/// Runs a token command.
pub fn run(command: TokenCommand) -> Result<ExitCode> {
    let TokenCommand::Create(args) = command;
    let (token, grant) = create(args)?;
    let entry = as_toml(&grant)?;
    println!("# The token, shown this once; give it to its user:\n# {token}\n{entry}");
    Ok(ExitCode::SUCCESS)
}

/// 256 random bits, so that a plain digest is enough to keep: there is nothing to guess.
pub fn random_token() -> String {
    format!("cos_{}", hex::encode(rand::random::<[u8; 32]>()))
}

fn create(args: CreateArgs) -> Result<(String, TokenGrant)> {
    ensure!(!args.tenant.is_empty(), "--tenant is empty");
    let token = random_token();
    let some = |names: Vec<String>| Some(names.into_iter().collect::<BTreeSet<_>>()).filter(|set| !set.is_empty());
    let expires_at: Option<DateTime<Utc>> = match args.expires_in {
        Some(Lifetime(duration)) => {
            let delta = TimeDelta::from_std(duration).context("--expires-in is too long")?;
            Some(Utc::now().checked_add_signed(delta).context("--expires-in is too long")?)
        }
        None => None,
    };
    let permissions = args.permissions.into_iter().map(|permission| match permission {
        PermissionArg::Ingest => Permission::Ingest,
        PermissionArg::Query => Permission::Query,
        PermissionArg::Operate => Permission::Operate,
    });
    let grant = TokenGrant {
        id: args.id.unwrap_or_else(|| format!("{}-{}", args.tenant, hex::encode(rand::random::<[u8; 3]>()))),
        sha256: token_digest(&token),
        permissions: permissions.collect(),
        scope: Scope { tenant: args.tenant, envs: some(args.envs), regions: some(args.regions) },
        expires_at,
    };
    Ok((token, grant))
}

fn as_toml(grant: &TokenGrant) -> Result<String> {
    #[derive(Serialize)]
    struct File<'a> {
        access: Access<'a>,
    }
    #[derive(Serialize)]
    struct Access<'a> {
        tokens: [&'a TokenGrant; 1],
    }
    Ok(toml::to_string(&File { access: Access { tokens: [grant] } })?)
}

#[cfg(test)]
mod tests {
    use companyos_schemas::access::TokenRegistry;

    use super::*;

    #[test]
    fn the_printed_entry_lets_the_printed_token_in_and_does_not_hold_it() {
        let args = CreateArgs {
            tenant: "alpha".to_owned(),
            permissions: vec![PermissionArg::Query],
            envs: vec!["prod".to_owned()],
            regions: vec![],
            id: None,
            expires_in: Some("1day".parse().unwrap()),
        };
        let (token, grant) = create(args).unwrap();
        let text = as_toml(&grant).unwrap();
        assert!(!text.contains(&token));
        #[derive(serde::Deserialize)]
        struct File {
            access: crate::config::AccessSection,
        }
        let file: File = toml::from_str(&text).unwrap();
        let registry = TokenRegistry::new(file.access.tokens).unwrap();
        let scope = &registry.authorize(&token, Permission::Query, Utc::now()).unwrap().scope;
        assert!(scope.covers("alpha", "prod", "any") && !scope.covers("alpha", "dev", "any"));
        assert!(registry.authorize(&token, Permission::Ingest, Utc::now()).is_err());
        assert!(registry.authorize(&token, Permission::Query, Utc::now() + TimeDelta::days(2)).is_err());
    }
}
