//! TLS with both sides' certificates, and settings for single hosts: `nginx` in front of the embedded registry.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ocm_content::MemoryStores;
use ocm_registry::{Registry, RegistryConfig};
use ocm_testdata::peers::skip;
use ocm_testdata::tunnels::Tunnels;

use crate::place::Place;

/// Authority, server and client certificates: `ca.pem`, `server.pem`, `client.pem` (and their keys).
const CERTIFICATES: &str = "set -e
    key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
    openssl req -x509 $key -keyout ca.key -out ca.pem -days 2 -subj /CN=test
    printf 'subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.example\n' > names
    for name in server client; do
        openssl req $key -keyout $name.key -out $name.request -subj /CN=$name
        openssl x509 -req -in $name.request -CA ca.pem -CAkey ca.key -CAcreateserial -out $name.pem -days 2 -extfile names
    done
    cat client.pem client.key > client.both";

struct Nginx {
    process: Child,
    host: String,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Lets only those through to the registry `behind` it who show a certificate of the authority.
fn in_front_of(behind: &str, here: &str) -> String {
    format!(
        "ssl_client_certificate {here}/ca.pem; ssl_verify_client on;\n\
         location / {{ proxy_pass http://{behind}; proxy_set_header Host $http_host; proxy_http_version 1.1; }}"
    )
}

/// Starts one in the foreground, with what a server has by its folder and its port.
async fn nginx(folder: &Path, server: impl Fn(&str, u16) -> String) -> Option<Nginx> {
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let Some(program) = program else {
        skip("nginx is not installed");
        return None;
    };
    if !Path::new("/usr/bin/openssl").exists() {
        skip("openssl is not installed");
        return None;
    }
    let made = Command::new("sh")
        .args(["-c", CERTIFICATES])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    for _ in 0..5 {
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap();
        let (host, here) = (address.to_string(), folder.display().to_string());
        let server = server(&here, address.port());
        let config = format!(
            "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;\n\
             events {{}}\n\
             http {{ log_format who '$host $uri $http_authorization'; access_log {here}/access.log who;\n\
             client_max_body_size 0;\n\
             client_body_temp_path {here}/t1; proxy_temp_path {here}/t2; fastcgi_temp_path {here}/t3;\n\
             uwsgi_temp_path {here}/t4; scgi_temp_path {here}/t5;\n\
             server {{ listen {host} ssl; ssl_certificate {here}/server.pem; ssl_certificate_key {here}/server.key;\n\
             {server} }} }}\n"
        );
        let path = folder.join("nginx.conf");
        std::fs::write(&path, config).unwrap();
        let process = Command::new(program)
            .args(["-p", &here, "-c"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut nginx = Nginx { process, host };
        for _ in 0..500 {
            if nginx.process.try_wait().unwrap().is_some() {
                break;
            }
            if tokio::net::TcpStream::connect(&nginx.host).await.is_ok() {
                return Some(nginx);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let log = std::fs::read_to_string(folder.join("error.log")).unwrap_or_default();
    panic!("nginx does not start: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_show_certificates() {
    let place = Place::new();
    let config = RegistryConfig::new(Arc::new(MemoryStores::new()));
    let registry = Registry::bind(config, ([127, 0, 0, 1], 0).into());
    let registry = registry.await.unwrap();
    let folder = place.path("nginx");
    std::fs::create_dir(&folder).unwrap();
    let behind = registry.addr.to_string();
    let Some(nginx) = nginx(&folder, |here, _| in_front_of(&behind, here)).await else {
        return;
    };
    let (name, port) = nginx.host.split_once(':').unwrap();
    let consumer = |lines: &str| {
        format!(
            "type: generic.config.ocm.software/v1\nconfigurations:\n\
             - {{type: http.config.ocm.software, retry: {{maxRetries: -1}}}}\n\
             - type: credentials.config.ocm.software\n  consumers:\n  \
             - identity: {{type: OCIRegistry, hostname: {name}, port: '{port}', scheme: https}}\n    \
             credentials: [{{type: Credentials/v1, properties: {{{lines}}}}}]\n"
        )
    };
    place.put(
        "files",
        consumer("certFile: nginx/client.pem, keyFile: nginx/client.key, caFile: nginx/ca.pem"),
    );
    let text = |file: &str| {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        format!("\"{}\"", text.replace('\n', "\\n"))
    };
    place.put(
        "inline",
        consumer(&format!(
            "certificate: {}, privateKey: {}, certificateAuthority: {}",
            text("client.pem"),
            text("client.key"),
            text("ca.pem")
        )),
    );
    place.put("only-ca", consumer("caFile: nginx/ca.pem"));
    place.put("only-cert", consumer("certFile: nginx/client.pem"));
    place.put(
        "careless",
        format!(
            "type: http.config.ocm.software\nretry: {{maxRetries: -1}}\nhosts: {{'{}': {{insecureSkipVerify: true}}}}\n",
            nginx.host
        ),
    );
    let reference = format!("https://{}//acme.org/x", nginx.host);
    let pair = format!("{}=nginx/client.both", nginx.host);
    let trust = ["--ca-file", "nginx/ca.pem"];
    let show = ["--client-cert", &pair];
    // There is nothing (4): both took each other for whom they are.
    for (more, code) in [
        (&["--config", "files"][..], 4),
        (&["--config", "inline"], 4),
        (&[&trust[..], &show[..]].concat(), 4),
        (&[&["--config", "only-ca"][..], &show[..]].concat(), 4),
        (&[&["--config", "careless"][..], &show[..]].concat(), 4),
        // Nobody vouches for the server.
        (&[&["--config", "only-cert"][..], &show[..]].concat(), 3),
        (&show, 7),
    ] {
        let ran = [&["get", "cv", &reference][..], more].concat();
        let ran = place.run(&ran).await;
        assert_eq!(ran.code, code, "{more:?}: {}", ran.stderr);
    }
    // Without a certificate of its own the client is turned away, in words that depend on who is first.
    let nobody = ["get", "cv", &reference, "--config", "only-ca"];
    assert_ne!(place.run(&nobody).await.code, 4);
    let wrong = format!("{}=nginx/ca.key", nginx.host);
    let wrong = ["get", "cv", &reference, "--client-cert", &wrong];
    let wrong = place.run(&wrong).await.code(3).stderr;
    assert!(
        wrong.contains("there is no PEM certificate in it"),
        "{wrong}"
    );
    let odd = ["get", "cv", &reference, "--client-cert", "nginx/ca.pem"];
    place.run(&odd).await.code(2);
}

/// A registry that names a token service on another host, and redirects to where there is no TLS.
fn asking(port: u16) -> String {
    format!(
        "location /v2/ {{ if ($http_authorization = 'Bearer good') {{ return 404; }}\n\
         add_header WWW-Authenticate 'Bearer realm=\"https://localhost:{port}/token\",service=\"r\"' always; return 401; }}\n\
         location /token {{ default_type application/json; return 200 '{{\"token\":\"good\"}}'; }}\n\
         location /v2/away/ {{ return 307 http://registry.example/v2/away/; }}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_go_to_a_token_service_elsewhere_with_a_word_or_where_it_is_named() {
    let place = Place::new();
    let folder = place.path("nginx");
    std::fs::create_dir(&folder).unwrap();
    let Some(nginx) = nginx(&folder, |_, port| asking(port)).await else {
        return;
    };
    let (name, port) = nginx.host.split_once(':').unwrap();
    let settings = |hosts: &str| {
        format!(
            "type: generic.config.ocm.software/v1\nconfigurations:\n\
             - {{type: http.config.ocm.software, retry: {{maxRetries: -1}}, hosts: {{{hosts}}}}}\n\
             - type: credentials.config.ocm.software\n  consumers:\n  \
             - identity: {{type: OCIRegistry, hostname: {name}, port: '{port}', scheme: https}}\n    \
             credentials: [{{type: Credentials/v1, properties: {{username: jo, password: hunter2}}}}]\n"
        )
    };
    let log = folder.join("access.log");
    let reference = format!("https://{}//acme.org/x", nginx.host);
    let told = format!("go to the token service that it names, localhost:{port}");
    let refused =
        format!("it names the token service https://localhost:{port}, and the configuration names");
    for (hosts, code, says, sent) in [
        // There is nothing (4), as who may ask is told.
        (String::new(), 4, told.as_str(), true),
        (
            format!("'{name}': {{tokenService: localhost}}"),
            4,
            "",
            true,
        ),
        (
            format!("'{}': {{tokenService: 'localhost:{port}'}}", nginx.host),
            4,
            "",
            true,
        ),
        (
            format!("'{name}': {{tokenService: auth.example}}"),
            3,
            refused.as_str(),
            false,
        ),
        (
            format!("'{name}': {{tokenService: 'localhost:1'}}"),
            3,
            refused.as_str(),
            false,
        ),
    ] {
        place.put("config", settings(&hosts));
        std::fs::write(&log, "").unwrap();
        let arguments = [
            "get",
            "cv",
            &reference,
            "--config",
            "config",
            "--ca-file",
            "nginx/ca.pem",
        ];
        let ran = place.run(&arguments).await.code(code);
        let warnings = ran.stderr.matches(&told).count();
        assert_eq!(
            warnings,
            usize::from(says == told),
            "{hosts}: {}",
            ran.stderr
        );
        assert!(ran.stderr.contains(says), "{hosts}: {}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
        let log = std::fs::read_to_string(&log).unwrap();
        // jo:hunter2
        let asked = log.contains("localhost /token Basic am86aHVudGVyMg==");
        assert_eq!(asked, sent, "{hosts}: {log}");
        assert!(!log.contains("127.0.0.1 /v2/ Basic"), "{log}");
    }
    // A step down from TLS is not taken.
    let away = format!("https://{}/away//acme.org/x", nginx.host);
    let away = [
        "get",
        "cv",
        &away,
        "--config",
        "config",
        "--ca-file",
        "nginx/ca.pem",
    ];
    let away = place.run(&away).await.code(3).stderr;
    assert!(
        away.contains("it redirects from https to http at http://registry.example"),
        "{away}"
    );
}

/// The program is told of a proxy for TLS, and whom not to ask through it.
#[tokio::test(flavor = "multi_thread")]
async fn tls_goes_through_the_tunnel_of_a_proxy_unless_the_host_is_left_out() {
    let place = Place::new();
    let folder = place.path("nginx");
    std::fs::create_dir(&folder).unwrap();
    let nothing = |_: &str, _| "location / { return 404; }".to_owned();
    let Some(nginx) = nginx(&folder, nothing).await else {
        return;
    };
    place.put(
        "config",
        "type: http.config.ocm.software\nretry: {maxRetries: -1}\n",
    );
    let get = [
        "get",
        "cv",
        "https://registry.example//acme.org/x",
        "--config",
        "config",
        "--ca-file",
        "nginx/ca.pem",
    ];
    let connect = "CONNECT registry.example:443 HTTP/1.1";
    // The server has nothing (4); past the proxy there is no such host (7).
    for (names, bypass, code) in [
        (&["HTTPS_PROXY"][..], None, 4),
        (&["https_proxy"], None, 4),
        (&["ALL_PROXY"], None, 4),
        (&["HTTPS_PROXY"], Some(("NO_PROXY", "other.example")), 4),
        (&["HTTP_PROXY"], None, 7),
        (&["HTTPS_PROXY"], Some(("NO_PROXY", "registry.example")), 7),
        (&["https_proxy"], Some(("no_proxy", "a, .example")), 7),
        (&["HTTPS_PROXY", "https_proxy"], Some(("NO_PROXY", "*")), 7),
    ] {
        let proxy = Tunnels::to(nginx.host.parse().unwrap()).await.unwrap();
        let url = format!("http://{}", proxy.host());
        let mut environment: Vec<(&str, &str)> =
            names.iter().map(|name| (*name, url.as_str())).collect();
        environment.extend(bypass);
        let ran = place.run_with(&environment, &get).await;
        assert_eq!(ran.code, code, "{names:?} {bypass:?}: {}", ran.stderr);
        let asked = proxy.asked();
        let tunneled = asked.iter().all(|line| line == connect);
        assert!(tunneled && asked.is_empty() == (code == 7), "{asked:?}");
    }
}
