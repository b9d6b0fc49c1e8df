//! Fixed strings that begin a credential or name one, found all at once.

use aho_corasick::packed;

/// What a keyword says about the text at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    /// A provider's prefix; an index into [`super::provider::FORMATS`].
    Provider(usize),
    /// `eyJ`: base64 of `{"`.
    Jwt,
    /// `-----BEGIN`.
    Pem,
    /// A part of a word for a secret.
    Context(Sense),
}

/// How much a word for a secret promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sense {
    /// What follows is a password, however simple.
    Password,
    /// What follows is a key or secret.
    Secret,
    /// What follows may be a token, or a number of tokens.
    Token,
    /// What follows is an HTTP credential.
    Authorization,
}

/// Parts of words, so that `Password`, `userPassword` and `PASSWORD` need two entries and not six.
const CONTEXT: &[(&str, Sense)] = &[
    ("assw", Sense::Password),
    ("ASSW", Sense::Password),
    ("assphrase", Sense::Password),
    ("assphrase", Sense::Password),
    ("pwd", Sense::Password),
    ("PWD", Sense::Password),
    ("ontrase", Sense::Password),
    ("mot de passe", Sense::Password),
    ("senha", Sense::Password),
    ("achtwoord", Sense::Password),
    ("ecret", Sense::Secret),
    ("ECRET", Sense::Secret),
    ("pi_key", Sense::Secret),
    ("piKey", Sense::Secret),
    ("piKEY", Sense::Secret),
    ("pi-key", Sense::Secret),
    ("pi-Key", Sense::Secret),
    ("PI_KEY", Sense::Secret),
    ("PI-KEY", Sense::Secret),
    ("pikey", Sense::Secret),
    ("PIKEY", Sense::Secret),
    ("pi key", Sense::Secret),
    ("PI key", Sense::Secret),
    ("PI-key", Sense::Secret),
    ("redential", Sense::Secret),
    ("rivate_key", Sense::Secret),
    ("rivateKey", Sense::Secret),
    ("ccess_key", Sense::Secret),
    ("ccess key", Sense::Secret),
    ("ccessKey", Sense::Secret),
    ("oken", Sense::Token),
    ("OKEN", Sense::Token),
    ("uthorization", Sense::Authorization),
    ("earer ", Sense::Authorization),
];

/// All keywords, ready to be searched for.
pub(crate) struct Keywords {
    searcher: Option<packed::Searcher>,
    /// Where the processor or the number of keywords rules the packed search out.
    fallback: Option<aho_corasick::AhoCorasick>,
    meanings: Vec<Keyword>,
}

impl Keywords {
    pub fn new() -> Self {
        let mut patterns = Vec::new();
        let mut meanings = Vec::new();
        let mut add = |pattern: &'static str, meaning| {
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
                meanings.push(meaning);
            }
        };
        for (index, format) in super::provider::FORMATS.iter().enumerate() {
            format.prefixes.iter().for_each(|prefix| add(prefix, Keyword::Provider(index)));
        }
        add("eyJ", Keyword::Jwt);
        add("-----BEGIN", Keyword::Pem);
        CONTEXT.iter().for_each(|(part, sense)| add(part, Keyword::Context(*sense)));
        let searcher =
            packed::Config::new().match_kind(packed::MatchKind::LeftmostFirst).builder().extend(&patterns).build();
        let fallback = match &searcher {
            Some(_) => None,
            None => aho_corasick::AhoCorasick::builder()
                .match_kind(aho_corasick::MatchKind::LeftmostFirst)
                .build(&patterns)
                .ok(),
        };
        Self { searcher, fallback, meanings }
    }

    /// Calls `visit` for every keyword with its first byte and the byte after it.
    #[inline]
    pub fn each(&self, text: &[u8], mut visit: impl FnMut(Keyword, usize, usize)) {
        let mut tell = |pattern: usize, start, end| {
            if let Some(keyword) = self.meanings.get(pattern) {
                visit(*keyword, start, end);
            }
        };
        match (&self.searcher, &self.fallback) {
            (Some(searcher), _) => {
                searcher.find_iter(text).for_each(|m| tell(m.pattern().as_usize(), m.start(), m.end()));
            }
            (None, Some(fallback)) => {
                fallback.find_iter(text).for_each(|m| tell(m.pattern().as_usize(), m.start(), m.end()));
            }
            (None, None) => {}
        }
    }
}
