//! One node of the demo: its configuration, its process, its end.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::served::{self, Listed, Served, VARIABLE};
use crate::config::schema::VARIABLE_PREFIX;
use crate::shell::process;

/// A log line of a node may be this long; what is longer comes in pieces.
const LOG_LINE_BYTES_MAX: u64 = 8 * 1024;

pub struct Node {
    pub name: String,
    /// `host:port`
    pub client: String,
    pub mesh: String,
    configuration: PathBuf,
    child: Option<Child>,
}

/// What all nodes of one demo have in common.
pub struct Common<'a> {
    pub directory: &'a Path,
    pub nodes: &'a [Listed],
    pub seeds: &'a [String],
    pub workers: u16,
    pub log_level: &'a str,
}

impl Node {
    /// Writes what the node needs into the directory. `bundle` is its certificate.
    pub fn prepare(name: String, client: String, mesh: String, bundle: &str, common: &Common<'_>) -> io::Result<Self> {
        let bundle_path = common.directory.join(format!("{name}.pem"));
        let configuration = common.directory.join(format!("{name}.toml"));
        write_secret(&bundle_path, bundle)?;
        write_secret(&configuration, &configuration_text(&name, &client, &mesh, &bundle_path, common))?;
        Ok(Node { name, client, mesh, configuration, child: None })
    }

    /// Its process is started, from the thread that the demo lives as long as.
    pub fn start(&mut self, program: &Path, token: String, nonce: String, nodes: &[Listed]) -> io::Result<()> {
        let served = Served { name: self.name.clone(), token, nonce, nodes: nodes.to_vec() };
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg("--config")
            .arg(&self.configuration)
            .env(VARIABLE, serde_json::to_string(&served)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // What the demo's user has set for nodes is not meant for these.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(VARIABLE_PREFIX) {
                command.env_remove(name);
            }
        }
        process::die_with_parent(&mut command);
        let mut child = command.spawn()?;
        if let Some(stderr) = child.stderr.take() {
            let name = self.name.clone();
            std::thread::Builder::new().name(format!("log of {name}")).spawn(move || pass_on(&name, stderr))?;
        }
        self.child = Some(child);
        Ok(())
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Buries the process if it has ended since the last question, and says how.
    pub fn poll_end(&mut self) -> Option<String> {
        let ended = match self.child.as_mut()?.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => manner(status),
            Err(error) => format!("in a way that cannot be known: {error}"),
        };
        self.child = None;
        Some(ended)
    }

    pub fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // It fails only for a child that has ended by itself, which is what is wanted.
            let _ = child.kill();
        }
    }

    pub fn terminate(&mut self) {
        if let Some(child) = &mut self.child {
            // As above.
            let _ = process::terminate(child);
        }
    }
}

/// Nobody outlives its owner, not even when the demo fails half-way.
impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if let Some(child) = &mut self.child {
            // A killed child ends at once; there is nothing to do with how.
            let _ = child.wait();
        }
    }
}

fn manner(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(libc::SIGKILL), _) => "killed".to_owned(),
        (Some(signal), _) => format!("by signal {signal}"),
        (None, Some(code)) => format!("with exit code {code}"),
        (None, None) => "in an unknown way".to_owned(),
    }
}

/// A node's log goes to our standard error, line by line, with its name.
fn pass_on(name: &str, log: impl io::Read) {
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    loop {
        line.clear();
        match io::Read::take(&mut log, LOG_LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        // Where standard error is gone there is nobody to read it; the node's pipe must be emptied all the same.
        let _ = writeln!(io::stderr(), "{name} | {text}");
    }
}

fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// Open to everybody who reaches the loopback address: any channel, no token.
fn configuration_text(name: &str, client: &str, mesh: &str, bundle: &Path, common: &Common<'_>) -> String {
    // JSON's strings are strings of TOML.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let list = |texts: &[String]| serde_json::Value::from(texts.to_vec()).to_string();
    let (address, port) = client.rsplit_once(':').unwrap_or((client, "0"));
    let origins = served::origins(common.nodes.iter().map(|node| node.client.as_str()));
    let seeds: Vec<String> = common.seeds.iter().filter(|seed| *seed != mesh).cloned().collect();
    [
        "[node]\n",
        &format!("name = {}\nworkers = {}\n", quoted(name), common.workers),
        // Several nodes share the machine: each pinning its first worker to the first core would be the worst of all.
        "pin = false\n",
        &format!("[http_server]\naddress = {}\nport = {port}\n", quoted(address)),
        &format!("[client]\ninsecure = true\nallowed_origins = {}\n", list(&origins)),
        "[http_api]\ninsecure = true\n",
        // No character of a name means anything, so that every channel exists.
        "[channel]\nprivate_prefix = ''\nnamespace_boundary = ''\nuser_boundary = ''\n",
        &format!("[mesh]\nbundle = {}\nlisten = {}\n", quoted(&bundle.to_string_lossy()), quoted(mesh)),
        &format!("seeds = {}\njoin_timeout = '3s'\n", list(&seeds)),
        &format!("[log]\nlevel = {}\n", quoted(common.log_level)),
        "[shutdown]\ntimeout = '3s'\n",
    ]
    .concat()
}

const PREFIX: &str = "skein-demo-";
const LOCK: &str = "lock";

/// A directory for this demo alone, removed with what is in it.
pub struct Scratch {
    path: PathBuf,
    /// Locked as long as the demo lives: by that others see what one that was killed has left.
    _lock: File,
}

impl Scratch {
    pub fn make(parent: &Path, word: &str) -> io::Result<Self> {
        let path = parent.join(format!("{PREFIX}{word}"));
        // Fails where it exists: nobody else has made it for us.
        DirBuilder::new().mode(0o700).create(&path)?;
        // Under its own name it is never seen unlocked.
        let fresh = path.join("lock.new");
        let lock = File::create_new(&fresh)?;
        lock.lock()?;
        fs::rename(&fresh, path.join(LOCK))?;
        Ok(Scratch { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now, the next demo tries again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the directories of demos that were killed, beside `ours` and of the same user.
pub fn sweep(ours: &Scratch) {
    let Some(parent) = ours.path.parent() else { return };
    let Ok(user) = fs::metadata(&ours.path).map(|metadata| metadata.uid()) else { return };
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let named = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // Anybody may put anything there.
        let own = || entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user);
        let abandoned = || File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if named && own() && abandoned() {
            // As above.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{self, Sources};

    #[test]
    fn a_nodes_configuration_is_a_good_one_and_open() {
        let listed = |name: &str, client: &str| Listed { name: name.into(), client: client.into() };
        let nodes = [listed("n1", "127.0.0.1:8000"), listed("n2", "127.0.0.1:8001")];
        let seeds = ["127.0.0.1:7800".to_owned(), "127.0.0.1:7802".to_owned()];
        let common = Common { directory: Path::new("/"), nodes: &nodes, seeds: &seeds, workers: 2, log_level: "warn" };
        let odd_path = Path::new("/tmp/it's \"odd\"/n2.pem");
        let text = configuration_text("n2", "127.0.0.1:8001", "127.0.0.1:7802", odd_path, &common);
        let sources = Sources { file: Some(("n2.toml".into(), text)), ..Sources::default() };
        let settings = config::resolve(&sources).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        assert_eq!(settings.node.name.unwrap().as_str(), "n2");
        assert_eq!(settings.node.workers, Some(2));
        assert_eq!(settings.http.listen.to_string(), "127.0.0.1:8001");
        assert_eq!(settings.http.allowed_origins.len(), 4);
        assert!(settings.api.insecure);
        let mesh = settings.mesh.unwrap();
        assert_eq!(mesh.bundle, odd_path);
        assert_eq!(mesh.seeds.len(), 1);
    }

    #[test]
    fn how_a_process_ended_is_said_in_words() {
        assert_eq!(manner(ExitStatus::from_raw(9)), "killed");
        assert_eq!(manner(ExitStatus::from_raw(6)), "by signal 6");
        assert_eq!(manner(ExitStatus::from_raw(2 << 8)), "with exit code 2");
    }

    #[test]
    fn the_scratch_directory_is_ours_alone_and_goes_with_us() {
        let parent = Scratch::make(&std::env::temp_dir(), &format!("test-{}", std::process::id())).unwrap();
        let scratch = Scratch::make(parent.path(), "a").unwrap();
        let path = scratch.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        write_secret(&path.join("a"), "b").unwrap();
        assert!(Scratch::make(parent.path(), "a").is_err());
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_demo_left_is_swept_and_what_a_living_one_has_is_not() {
        let parent = Scratch::make(&std::env::temp_dir(), &format!("test-sweep-{}", std::process::id())).unwrap();
        let living = Scratch::make(parent.path(), "living").unwrap();
        let left = parent.path().join(format!("{PREFIX}left"));
        fs::create_dir(&left).unwrap();
        sweep(&living);
        assert!(left.exists(), "without a lock it may just be made");
        fs::write(left.join(LOCK), "").unwrap();
        sweep(&living);
        assert!(!left.exists());
        assert!(living.path().exists());
    }
}
