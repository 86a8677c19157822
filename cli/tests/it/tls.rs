//! TLS with both sides' certificates, and settings for single hosts: `nginx` in front of the embedded registry.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ocm_content::MemoryStores;
use ocm_registry::{Registry, RegistryConfig};
use ocm_testdata::peers::skip;

use crate::place::Place;

/// Authority, server and client certificates: `ca.pem`, `server.pem`, `client.pem` (and their keys).
const CERTIFICATES: &str = "set -e
    key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
    openssl req -x509 $key -keyout ca.key -out ca.pem -days 2 -subj /CN=test
    printf 'subjectAltName=IP:127.0.0.1\n' > names
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

/// Starts one in the foreground, which lets only those through who show a certificate of the authority.
async fn nginx(folder: &Path, behind: &str) -> Option<Nginx> {
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
        let host = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .to_string();
        let here = folder.display();
        let config = format!(
            "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;\n\
             events {{}}\n\
             http {{ access_log off; client_max_body_size 0;\n\
             client_body_temp_path {here}/t1; proxy_temp_path {here}/t2; fastcgi_temp_path {here}/t3;\n\
             uwsgi_temp_path {here}/t4; scgi_temp_path {here}/t5;\n\
             server {{ listen {host} ssl; ssl_certificate {here}/server.pem; ssl_certificate_key {here}/server.key;\n\
             ssl_client_certificate {here}/ca.pem; ssl_verify_client on;\n\
             location / {{ proxy_pass http://{behind}; proxy_set_header Host $http_host; proxy_http_version 1.1; }} }} }}\n"
        );
        let path = folder.join("nginx.conf");
        std::fs::write(&path, config).unwrap();
        let process = Command::new(program)
            .args(["-p", &here.to_string(), "-c"])
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
    let Some(nginx) = nginx(&folder, &registry.addr.to_string()).await else {
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
