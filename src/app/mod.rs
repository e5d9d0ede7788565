//! The command line: which command, with what, and how the process ends.
//!
//! Each command has a file of its own that says what it takes and does it; here stands only the tree. What a command
//! prints for others to read goes to standard output, everything else to standard error.
//!
//! Always true: a command that did not do what it should says so in one clear sentence, with an exit code of `exit`.

pub mod cert;
pub mod cluster;
mod configuration;
pub mod demo;
mod endpoint;
pub mod exit;
pub mod logging;
mod options;
pub mod pub_sub;
pub mod serve;
pub mod terminal;
mod token;
mod version;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use exit::{Exit, Failure};

/// `args` begins with the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(told) => {
            // Help and usage go where they can; where they cannot, the exit code is all that is left to say.
            let _ = told.print();
            return if told.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match dispatch(&matches) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            eprintln!("skein: {failure}");
            failure.exit.into()
        }
    }
}

fn dispatch(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("serve", matches)) => serve::run(options::settings(matches)?),
        Some(("demo", matches)) => demo::run(demo_options(matches)),
        Some(("config", matches)) => configuration::run(matches),
        Some(("token", matches)) => token::run(matches),
        Some(("cert", matches)) => certificates(matches),
        Some(("pub", matches)) => pub_sub::publish(pub_sub::publish_options(matches)?),
        Some(("sub", matches)) => pub_sub::subscribe(pub_sub::subscribe_options(matches)?),
        Some(("cluster", matches)) => match matches.subcommand() {
            Some(("status", matches)) => cluster::status(cluster::options(matches)?),
            _ => unreachable!("a subcommand is required"),
        },
        Some(("version", _)) => version::run(),
        _ => unreachable!("a subcommand is required"),
    }
}

fn command() -> Command {
    Command::new("skein")
        .about("A WebSocket gateway that is its own backplane")
        .version(version::VERSION)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .after_help(Exit::table())
        .subcommand(serve::command().after_help(Exit::table()))
        .subcommand(demo_command())
        .subcommand(configuration::command())
        .subcommand(token::command())
        .subcommand(certificate_command())
        .subcommand(pub_sub::publish_command())
        .subcommand(pub_sub::subscribe_command())
        .subcommand(cluster::command())
        .subcommand(Command::new("version").about("Print the version"))
}

fn demo_command() -> Command {
    let number = |name: &'static str, most: i64, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("NUMBER")
            .value_parser(value_parser!(u16).range(1..=most))
            .default_value(default)
            .help(help)
    };
    Command::new("demo")
        .about("Run a cluster on this machine, with a page to try it in a browser")
        .arg(number("nodes", 9, "3", "How many nodes"))
        .arg(number("workers", crate::limits::WORKERS_MAX.into(), "1", "Workers of each node"))
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print one line of JSON when all is up, take no keys, and stop when standard input closes"),
        )
}

fn demo_options(matches: &ArgMatches) -> demo::Options {
    let number = |name| *matches.get_one(name).expect("default");
    demo::Options { nodes: number("nodes"), workers: number("workers"), json: matches.get_flag("json") }
}

fn certificate_command() -> Command {
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("PATH").value_parser(value_parser!(PathBuf)).help(help)
    };
    let directory = || path("ca", "The directory of the cluster's CA").default_value("skein-ca");
    let force = || Arg::new("force").long("force").action(ArgAction::SetTrue).help("Replace what exists");
    Command::new("cert")
        .about("Make the certificates that nodes know each other by")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("ca")
                .about("Make a cluster's CA; once, on a machine that is not one of the nodes")
                .arg(directory())
                .arg(force()),
        )
        .subcommand(
            Command::new("node")
                .about("Make the bundle of a node, for `mesh.bundle`")
                .arg(Arg::new("NAME").required(true).help("The node's name, which is then in its certificate"))
                .arg(directory())
                .arg(path("out", "The file to write [default: NAME.pem]"))
                .arg(force()),
        )
}

fn certificates(matches: &ArgMatches) -> Result<(), Failure> {
    let (made, matches) = matches.subcommand().expect("a subcommand is required");
    let directory = matches.get_one::<PathBuf>("ca").expect("default");
    let overwrite = match matches.get_flag("force") {
        true => cert::Overwrite::Replace,
        false => cert::Overwrite::Never,
    };
    let done = match made {
        "ca" => {
            cert::ca(directory, overwrite).map_err(certificate_failure)?;
            format!("made the cluster's CA in {}: keep ca.key and hash.key secret\n", directory.display())
        }
        _ => {
            let name = matches.get_one::<String>("NAME").expect("required");
            let out = matches.get_one::<PathBuf>("out").cloned().unwrap_or_else(|| format!("{name}.pem").into());
            cert::node(directory, name, &out, overwrite).map_err(certificate_failure)?;
            format!("made {}: bring it to the node and name it in mesh.bundle\n", out.display())
        }
    };
    terminal::print(&done)
}

fn certificate_failure(error: cert::CertError) -> Failure {
    let exit = match error {
        cert::CertError::Name(..) | cert::CertError::Exists(_) | cert::CertError::NoAuthority(_) => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::GROUPS;
    use crate::config::{entries_of, path_of, variable_of};

    fn told(args: &[&str]) -> String {
        let args = ["skein"].iter().chain(args);
        command().try_get_matches_from(args).expect_err("help or a mistake").to_string()
    }

    fn flags(args: &[&str]) -> Result<crate::config::Settings, Failure> {
        let args = ["serve"].iter().chain(args);
        options::settings(&serve::command().try_get_matches_from(args).map_err(Failure::usage)?)
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn help_shows_every_option_with_its_variable() {
        let help = told(&["serve", "--help"]);
        for group in GROUPS {
            for entry in entries_of(group.table) {
                let path = path_of(group.table, entry);
                assert!(help.contains(&format!("--{path} ")) || help.contains(&format!("--{path}[")), "{path}");
                assert!(help.contains(&variable_of(&path)), "{path}");
            }
        }
        assert!(help.lines().all(|line| line.chars().count() <= 120), "lines fit");
    }

    #[test]
    fn help_shows_commands_and_exit_codes() {
        let help = told(&["--help"]);
        for command in ["serve", "demo", "config", "token", "cert", "pub", "sub", "cluster", "version"] {
            assert!(help.contains(&format!("\n  {command} ")), "{command}");
        }
        for exit in Exit::ALL {
            assert!(help.contains(&format!("  {}  {}", exit.code(), exit.meaning())), "{help}");
        }
    }

    #[test]
    fn a_misspelt_flag_or_command_is_shown_its_neighbour() {
        assert!(told(&["serve", "--http_server.prot=1"]).contains("http_server.port"));
        assert!(told(&["serv"]).contains("serve"));
    }

    #[test]
    fn flags_reach_the_settings() {
        let settings = flags(&["--port=0", "--client.insecure", "--address", "0.0.0.0", "--driver", "epoll"]).unwrap();
        assert_eq!(settings.http.listen.to_string(), "0.0.0.0:0");
        assert_eq!(settings.node.driver, crate::config::Driver::Epoll);
        assert!(settings.rules.insecure && !settings.open);
        let settings =
            flags(&["--node.pin=false", "--proxy.trusted", "::1", "--proxy.trusted=10.0.0.0/8,1.2.3.4"]).unwrap();
        assert!(!settings.node.pin);
        assert_eq!(settings.proxy.trusted, ["::1", "10.0.0.0/8", "1.2.3.4"]);
    }

    #[test]
    fn all_mistakes_of_flags_are_told_with_the_flag() {
        let failure = flags(&["--port", "x", "--log.level", "loud"]).expect_err("two mistakes");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.starts_with("the configuration has 2 mistakes:\n"), "{failure}");
        assert!(failure.message.contains("--http_server.port: `http_server.port` must be a port"), "{failure}");
        assert!(failure.message.contains("--log.level: "), "{failure}");
    }

    #[test]
    fn the_demo_has_three_nodes_unless_told_otherwise() {
        let ask = |args: &[&str]| {
            let args = ["demo"].iter().chain(args);
            demo_command().try_get_matches_from(args).map(|matches| demo_options(&matches))
        };
        assert_eq!(ask(&[]).unwrap(), demo::Options { nodes: 3, workers: 1, json: false });
        let options = ask(&["--nodes", "5", "--workers=2", "--json"]).unwrap();
        assert_eq!(options, demo::Options { nodes: 5, workers: 2, json: true });
        assert!(ask(&["--nodes", "0"]).is_err());
    }

    #[test]
    fn what_a_terminal_client_is_told_is_checked() {
        let publish = |args: &[&str]| {
            let args = ["pub"].iter().chain(args);
            let matches = pub_sub::publish_command().try_get_matches_from(args).map_err(Failure::usage)?;
            pub_sub::publish_options(&matches)
        };
        let options = publish(&["news", "-1", "--protobuf", "--timeout", "1s"]).unwrap();
        assert_eq!((&*options.channel, options.data.as_deref()), ("news", Some("-1")));
        assert_eq!(options.target.encoding, pub_sub::Encoding::Protobuf);
        assert_eq!(options.target.url, "ws://127.0.0.1:8000/connection/websocket");
        assert_eq!(publish(&["news"]).unwrap().data, None);
        assert_eq!(publish(&["news", "x", "--url", "http://a"]).expect_err("no ws").exit, Exit::Usage);
        let subscribe = |args: &[&str]| {
            let args = ["sub"].iter().chain(args);
            let matches = pub_sub::subscribe_command().try_get_matches_from(args).map_err(Failure::usage)?;
            pub_sub::subscribe_options(&matches)
        };
        let options = subscribe(&["a", "b", "-n", "3", "--json"]).unwrap();
        assert_eq!((options.channels.len(), options.count, options.json), (2, Some(3), true));
        assert!(subscribe(&["a", "b", "--subscription-token", "t"]).is_err());
    }
}
