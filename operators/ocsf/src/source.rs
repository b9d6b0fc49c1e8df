//! Which system an event came from.

/// A system whose events are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// AWS CloudTrail.
    CloudTrail,
    /// OpenSSH server lines from syslog.
    OpenSsh,
    /// Okta's system log.
    Okta,
    /// GitHub's audit log.
    GitHub,
    /// Kubernetes' audit log.
    Kubernetes,
    /// Signals of the platform and its tenants' own services.
    Own,
}

impl SourceKind {
    /// All of them.
    pub const ALL: [SourceKind; 6] = [
        SourceKind::CloudTrail,
        SourceKind::OpenSsh,
        SourceKind::Okta,
        SourceKind::GitHub,
        SourceKind::Kubernetes,
        SourceKind::Own,
    ];

    /// The kind that the `source` column names; what is not known is an own signal. CloudTrail also
    /// goes by its `eventSource`, such as `s3.amazonaws.com`, which is what the replay map keeps.
    pub fn of(source: Option<&str>) -> Self {
        let Some(source) = source else { return SourceKind::Own };
        let is = |names: &[&str]| names.iter().any(|name| source.eq_ignore_ascii_case(name));
        if is(&["cloudtrail", "aws", "aws_cloudtrail", "aws.cloudtrail"]) || source.ends_with(".amazonaws.com") {
            SourceKind::CloudTrail
        } else if is(&["openssh", "sshd", "ssh"]) {
            SourceKind::OpenSsh
        } else if is(&["okta"]) {
            SourceKind::Okta
        } else if is(&["github"]) {
            SourceKind::GitHub
        } else if is(&["kubernetes", "k8s"]) {
            SourceKind::Kubernetes
        } else {
            SourceKind::Own
        }
    }

    /// The product, as Sigma's `logsource` names it.
    pub fn product(self) -> &'static str {
        match self {
            SourceKind::CloudTrail => "aws",
            SourceKind::OpenSsh => "linux",
            SourceKind::Okta => "okta",
            SourceKind::GitHub => "github",
            SourceKind::Kubernetes => "kubernetes",
            SourceKind::Own => "companyos",
        }
    }

    /// The service, as Sigma's `logsource` names it; for own signals it is the type of the signal.
    pub fn service(self) -> Option<&'static str> {
        match self {
            SourceKind::CloudTrail => Some("cloudtrail"),
            SourceKind::OpenSsh => Some("sshd"),
            SourceKind::Okta => Some("okta"),
            SourceKind::GitHub | SourceKind::Kubernetes => Some("audit"),
            SourceKind::Own => None,
        }
    }

    /// Vendor and product, as OCSF's `metadata.product` names them.
    pub(crate) fn vendor(self) -> (&'static str, &'static str) {
        match self {
            SourceKind::CloudTrail => ("AWS", "CloudTrail"),
            SourceKind::OpenSsh => ("OpenBSD", "OpenSSH"),
            SourceKind::Okta => ("Okta", "System Log"),
            SourceKind::GitHub => ("GitHub", "Audit Log"),
            SourceKind::Kubernetes => ("Kubernetes", "Audit"),
            SourceKind::Own => ("CompanyOS", "Security Signals"),
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_by_name() {
        assert_eq!(SourceKind::of(Some("s3.amazonaws.com")), SourceKind::CloudTrail);
        assert_eq!(SourceKind::of(Some("CloudTrail")), SourceKind::CloudTrail);
        assert_eq!(SourceKind::of(Some("openssh")), SourceKind::OpenSsh);
        assert_eq!(SourceKind::of(Some("evil-amazonaws.com")), SourceKind::Own);
        assert_eq!(SourceKind::of(None), SourceKind::Own);
        for (index, kind) in SourceKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index);
        }
    }
}
