//! What random policies and requests are made of. Both draw from the same few words, so that they
//! meet, and requests from their neighbourhood, so that they just miss.

use fastrand::Rng;

use crate::world::pick;

/// Components of paths: short ones, ones that names and patterns mention, and lengths around the
/// 24 bytes that the kernel compares at once.
const COMPONENTS: [&str; 22] = [
    "srv",
    "www",
    "data",
    "deep",
    "mount",
    "home",
    "ann",
    ".ssh",
    ".git",
    "mnt",
    "dev",
    "proc",
    "usr",
    "bin",
    "a.pem",
    "key.pem",
    "x",
    "exactly-24-bytes-long-ab",
    "exactly-24-bytes-long-abc",
    "a-name-that-is-longer-than-two-chunks-of-24-bytes",
    "a-name-that-is-two-chunks-of-24-bytes-long-abcde",
    "ünïcödé.pem",
];
const PATTERNS: [&str; 15] = [
    "*.pem",
    "a*",
    "a*.pem",
    "key.pem",
    "*",
    ".*",
    "k*m",
    "x",
    "exactly-24-bytes-long-ab*",
    "*actly-24-bytes-long-abc",
    "aa*aa",
    "ü*é.pem",
    "a-name-that-is-two-chunks-of-24-bytes-long-abcde",
    "/",
    "*-abc",
];
const NETS: [&str; 14] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.3/32",
    "0.0.0.0/0",
    "255.255.255.255/32",
    "0.0.0.0/32",
    "192.0.2.128/25",
    "fd00::/8",
    "fd00:0:0:1::/64",
    "::/0",
    "::1/128",
    "::ffff:10.2.0.0/112",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
    "::fffe:0:0/95",
];
const PORTS: [u16; 8] = [0, 1, 22, 80, 443, 8080, 65534, 65535];
const OWNERS: [u32; 4] = [0, 1000, 1001, u32::MAX - 1];
const ABSTRACTS: [&str; 4] = ["bus", "exactly-24-bytes-long-ab", "a-name-of-more-than-24-bytes-here", "b"];

/// The words of one bundle.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    /// Paths of literals.
    pub(crate) paths: Vec<String>,
    /// Components that `Guard::Name` names.
    pub(crate) names: Vec<String>,
    /// Patterns over the last component, without more than one `*`.
    pub(crate) patterns: Vec<String>,
    /// Networks.
    pub(crate) nets: Vec<String>,
    /// Names of hosts.
    pub(crate) hosts: Vec<&'static str>,
    /// Ports.
    pub(crate) ports: Vec<u16>,
    /// User ids.
    pub(crate) owners: Vec<u32>,
    /// Abstract socket names.
    pub(crate) abstracts: Vec<String>,
    /// A value for `${session.tree}`.
    pub(crate) tree: String,
    /// Whether conditions speak of signers.
    pub(crate) signers: bool,
}

impl Words {
    /// Random ones.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let mut paths: Vec<String> = ["/", "/bin", "/usr/bin/python", "/link", "/srv/up/x", "/hop"]
            .iter()
            .filter(|_| rng.u8(0..5) == 0)
            .map(|path| (*path).to_owned())
            .collect();
        let roots =
            ["", "/srv/www", "/data/deep", "/data/deep/mount", "/home/ann", "/mnt/www", "/dev", "/proc"];
        for _ in 0..rng.usize(2..5) {
            let mut path = (*pick(rng, &roots)).to_owned();
            for _ in 0..rng.usize(1..4) {
                path.push('/');
                path.push_str(component(rng));
                // Every directory on the way can be a literal as well.
                if rng.bool() {
                    paths.push(path.clone());
                }
            }
            paths.push(path);
        }
        let tree = pick(rng, &paths).clone();
        Self {
            paths,
            tree: if tree == "/" { "/srv/tree".into() } else { tree },
            nets: some(rng, &NETS, 1..6),
            abstracts: some(rng, &ABSTRACTS, 1..3),
            ..Self::small(rng)
        }
    }

    /// The words that cost feature bits, few enough of them for most bundles to compile; no paths and
    /// networks.
    pub(crate) fn small(rng: &mut Rng) -> Self {
        Self {
            paths: Vec::new(),
            names: some(rng, &COMPONENTS, 1..4),
            patterns: some(rng, &PATTERNS, 1..4),
            nets: Vec::new(),
            hosts: vec!["a.example", "b.example"],
            ports: some(rng, &PORTS, 1..4),
            owners: some(rng, &OWNERS, 1..3),
            abstracts: Vec::new(),
            tree: String::new(),
            signers: true,
        }
    }
}

fn some<T: Copy, U: From<T>>(rng: &mut Rng, from: &[T], count: std::ops::Range<usize>) -> Vec<U> {
    (0..rng.usize(count)).map(|_| U::from(*pick(rng, from))).collect()
}

/// A component that any path may get.
pub(crate) fn component(rng: &mut Rng) -> &'static str {
    COMPONENTS[rng.usize(0..COMPONENTS.len())]
}
