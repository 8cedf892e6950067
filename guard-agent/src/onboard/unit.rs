//! What a unit says about the service that a policy will be about.

use std::path::{Path, PathBuf};

use super::unit_file::{UnitFile, words};

/// Where the service manager looks for a program that is named without a directory.
const SEARCH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A service unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its full name.
    pub name: String,
    /// The programs of `ExecStart=`.
    pub programs: Vec<PathBuf>,
    /// The words behind the first of them: a script, for an interpreter.
    pub arguments: Vec<String>,
    /// `User=`; the service is root's without it.
    pub user: Option<String>,
    /// `Type=`, in lower case.
    pub kind: String,
    /// Directories that the unit hands to the service.
    pub directories: Vec<Directory>,
    /// `PIDFile=`
    pub pid_file: Option<PathBuf>,
    /// The service has a `/tmp` of its own.
    pub private_tmp: bool,
    /// The service sees another root than the agent.
    pub own_root: bool,
    /// `ExecReload=`, or a type that knows reloading.
    pub reloads: bool,
    /// What its socket units listen on.
    pub sockets: Vec<String>,
}

/// A directory of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The key that names it.
    pub key: &'static str,
    /// The directory.
    pub path: PathBuf,
    /// The service may write there.
    pub writable: bool,
}

/// Keys that name directories below a fixed one, and whether the service may write there.
const BELOW: [(&str, &str, bool); 5] = [
    ("ConfigurationDirectory", "/etc", false),
    ("StateDirectory", "/var/lib", true),
    ("CacheDirectory", "/var/cache", true),
    ("LogsDirectory", "/var/log", true),
    ("RuntimeDirectory", "/run", true),
];

/// Keys that name directories by their whole path, and whether the service may write there.
const WHOLE: [(&str, bool); 2] = [("ReadWritePaths", true), ("WorkingDirectory", false)];

impl Unit {
    /// Reads a unit and the socket units that start it. `exists` says whether a file is there.
    pub fn read(name: &str, text: &str, sockets: &[String], exists: &dyn Fn(&Path) -> bool) -> Self {
        let file = UnitFile::parse(text);
        let lines: Vec<Vec<String>> =
            file.all("Service", "ExecStart").iter().map(|line| words(&expand(line, name))).collect();
        let programs = lines.iter().filter_map(|line| program(line.first()?, exists));
        let kind = file.last("Service", "Type").unwrap_or("simple").to_ascii_lowercase();
        let path = |text: &str| {
            let path = PathBuf::from(expand(text, name));
            if path.is_absolute() { path } else { Path::new("/run").join(path) }
        };
        let listens = ["ListenStream", "ListenDatagram", "ListenSequentialPacket", "ListenFIFO"];
        Self {
            name: name.to_owned(),
            programs: programs.collect(),
            arguments: lines.first().map(|line| line[1..].to_vec()).unwrap_or_default(),
            user: file.last("Service", "User").map(|user| expand(user, name)),
            directories: directories(&file, name),
            pid_file: file.last("Service", "PIDFile").map(path),
            private_tmp: file.is_on("Service", "PrivateTmp")
                || file.last("Service", "PrivateTmp") == Some("disconnected")
                || file.is_on("Service", "DynamicUser"),
            own_root: ["RootDirectory", "RootImage"].iter().any(|key| file.last("Service", key).is_some()),
            reloads: !file.all("Service", "ExecReload").is_empty() || kind == "notify-reload",
            sockets: sockets
                .iter()
                .map(|text| UnitFile::parse(text))
                .flat_map(|file| {
                    let all = listens.iter().flat_map(|key| file.all("Socket", key).to_vec());
                    all.map(|value| expand(&value, name)).collect::<Vec<_>>()
                })
                .collect(),
            kind,
        }
    }
}

/// The program that a word of `ExecStart=` names, behind the prefixes that say how it is started.
fn program(word: &str, exists: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let name = word.trim_start_matches(['@', '-', ':', '+', '!', '|']);
    if name.starts_with('/') {
        return Some(name.into());
    }
    if name.is_empty() || name.contains(['/', '$']) {
        return None;
    }
    SEARCH.iter().map(|directory| Path::new(directory).join(name)).find(|path| exists(path))
}

fn directories(file: &UnitFile, name: &str) -> Vec<Directory> {
    let mut found: Vec<Directory> = Vec::new();
    let mut add = |key: &'static str, path: PathBuf, writable: bool| {
        if found.iter().all(|known| known.path != path || known.writable != writable) {
            found.push(Directory { key, path, writable });
        }
    };
    let listed = |key: &str| words(&expand(&file.all("Service", key).join(" "), name));
    for (key, below, writable) in BELOW {
        for word in listed(key) {
            // `NAME:LINK` names a symbolic link as well.
            let word = word.split(':').next().unwrap_or(&word).to_owned();
            add(key, Path::new(below).join(word), writable);
        }
    }
    for (key, writable) in WHOLE {
        for word in listed(key) {
            // `-` in front: it may be missing. `+`: below the unit's own root.
            let path = Path::new(word.trim_start_matches(['-', '+', '!'])).to_owned();
            if path.is_absolute() {
                add(key, path, writable);
            }
        }
    }
    found
}

/// The specifiers of a system unit that do not depend on the machine (`systemd.unit(5)`); others
/// are left as they are.
fn expand(text: &str, unit: &str) -> String {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match characters.next() {
            Some('n') => out.push_str(unit),
            Some('N') => out.push_str(stem),
            Some('p') => out.push_str(prefix),
            Some('i' | 'I') => out.push_str(instance),
            Some('t') => out.push_str("/run"),
            Some('S') => out.push_str("/var/lib"),
            Some('C') => out.push_str("/var/cache"),
            Some('L') => out.push_str("/var/log"),
            Some('E') => out.push_str("/etc"),
            Some('%') => out.push('%'),
            other => {
                out.push('%');
                out.extend(other);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debian's unit, with the drop-in of an administrator.
    const NGINX: &str = "\
# /lib/systemd/system/nginx.service
[Unit]
Description=A high performance web server and a reverse proxy server
After=network-online.target remote-fs.target nss-lookup.target

[Service]
Type=forking
PIDFile=/run/nginx.pid
ExecStartPre=/usr/sbin/nginx -t -q -g 'daemon on; master_process on;'
ExecStart=/usr/sbin/nginx -g 'daemon on; master_process on;'
ExecReload=/usr/sbin/nginx -g 'daemon on; master_process on;' -s reload
ExecStop=-/sbin/start-stop-daemon --quiet --stop --retry QUIT/5 --pidfile /run/nginx.pid
KillMode=mixed

[Install]
WantedBy=multi-user.target

# /etc/systemd/system/nginx.service.d/hardening.conf
[Service]
PrivateTmp=yes
ReadWritePaths=/run /var/log/nginx -/var/lib/nginx
";

    #[test]
    fn a_packaged_unit_with_a_drop_in() {
        let unit = Unit::read("nginx.service", NGINX, &[], &|_| true);
        assert_eq!(unit.programs, [Path::new("/usr/sbin/nginx")]);
        assert_eq!(unit.arguments, ["-g", "daemon on; master_process on;"]);
        assert_eq!(unit.pid_file.as_deref(), Some(Path::new("/run/nginx.pid")));
        assert!(unit.private_tmp && unit.reloads && !unit.own_root && unit.user.is_none());
        let directories: Vec<_> =
            unit.directories.iter().map(|one| (one.key, one.path.to_str().unwrap(), one.writable)).collect();
        let key = "ReadWritePaths";
        assert_eq!(
            directories,
            [(key, "/run", true), (key, "/var/log/nginx", true), (key, "/var/lib/nginx", true)]
        );
    }

    #[test]
    fn an_instance_knows_its_name() {
        let text = "[Service]\nType=notify-reload\nUser=%p\nExecStart=-@app app --cluster %i\nStateDirectory=%p/%i:x\nRootDirectory=/srv/root\n";
        let socket = "[Socket]\nListenStream=443\nListenStream=%t/%p/%i.sock\n".to_owned();
        let unit = Unit::read("pg@17.service", text, &[socket], &|path| path == Path::new("/usr/bin/app"));
        assert_eq!((unit.user.as_deref(), unit.kind.as_str()), (Some("pg"), "notify-reload"));
        assert_eq!(unit.programs, [Path::new("/usr/bin/app")]);
        assert_eq!(unit.directories[0].path, Path::new("/var/lib/pg/17"));
        assert_eq!(unit.sockets, ["443", "/run/pg/17.sock"]);
        assert!(unit.reloads && unit.own_root);
    }
}
