package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// kind is a proxy that may be here. start returns why it is not.
type kind struct {
	name  string
	start func(b *bench, p *proxy, targets []string) (why string, err error)
}

// All add the same headers, keep connections to both sides and write no log.
func kinds() []kind {
	own := func(role string) func(*bench, *proxy, []string) (string, error) {
		return func(b *bench, p *proxy, targets []string) (string, error) {
			return "", b.self(p, "-role", role, "-listen", p.addr, "-to", strings.Join(targets, ","))
		}
	}
	return []kind{
		{serin, own(serin)},
		{"haproxy", haproxy},
		{"nginx", nginx},
		{"caddy", caddy},
		{"reverse", own("reverse")},
	}
}

func haproxy(b *bench, p *proxy, targets []string) (string, error) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		return "it is not installed", nil
	}
	// It wants two descriptors for a connection, and more of its own.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return "", err
	}
	p.most = min(b.idle+1000, int(limit.Cur)/2-100)
	config := fmt.Sprintf(`global
  maxconn %d
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  option forwardfor
listen bench
  bind %s
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Port %%[dst_port]
  server a %s
  server b %s
`, p.most, p.addr, targets[0], targets[1])
	return "", b.configured(p, "haproxy.cfg", config, path, "-db", "-f")
}

func nginx(b *bench, p *proxy, targets []string) (string, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		return "it is not installed", nil
	}
	config := fmt.Sprintf(`daemon off;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log crit;
worker_processes auto;
events { worker_connections %[2]d; }
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  proxy_max_temp_file_size 0;
  keepalive_requests 1000000000;
  upstream targets { server %[3]s; server %[4]s; keepalive 1024; keepalive_requests 1000000000; }
  server {
    listen %[5]s;
    location / {
      proxy_pass http://targets;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto http;
      proxy_set_header X-Forwarded-Port $server_port;
    }
  }
}
`, b.work, b.idle+2000, targets[0], targets[1], p.addr)
	return "", b.configured(p, "nginx.conf", config, path, "-p", b.work, "-c")
}

const caddyVersion = "v2.11.9"

// caddy is built once, into the user's cache.
func caddy(b *bench, p *proxy, targets []string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err.Error(), nil
	}
	dir := filepath.Join(cache, "serin-bench")
	path := filepath.Join(dir, "caddy")
	if _, err := os.Stat(path); err != nil {
		fmt.Println("building caddy", caddyVersion, "once, into", dir)
		build := exec.Command("go", "install", "github.com/caddyserver/caddy/v2/cmd/caddy@"+caddyVersion)
		build.Dir, build.Env = b.work, append(os.Environ(), "GOBIN="+dir)
		if out, err := build.CombinedOutput(); err != nil {
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			return fmt.Sprintf("it could not be built: %s", lines[len(lines)-1]), nil
		}
	}
	config := fmt.Sprintf(`{
	admin off
	auto_https off
	persist_config off
}
http://%s {
	reverse_proxy %s {
		lb_policy round_robin
		header_up X-Forwarded-Port {http.request.local.port}
		transport http {
			keepalive_idle_conns 4096
			keepalive_idle_conns_per_host 1024
		}
	}
}
`, p.addr, strings.Join(targets, " "))
	return "", b.configured(p, "Caddyfile", config, path, "run", "--adapter", "caddyfile", "--config")
}

// configured starts a program whose last argument is its configuration.
func (b *bench) configured(p *proxy, file, config, program string, args ...string) error {
	path := filepath.Join(b.work, file)
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return err
	}
	return b.start(p, exec.Command(program, append(args, path)...))
}

func (b *bench) self(p *proxy, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return b.start(p, exec.Command(self, args...))
}

// start runs a program until the end of the measurement and waits until it listens.
func (b *bench) start(p *proxy, cmd *exec.Cmd) error {
	if conn, err := net.Dial("tcp", p.addr); err == nil {
		conn.Close()
		return fmt.Errorf("somebody else listens at %s", p.addr)
	}
	said := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.Dir = b.work
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.running = append(b.running, cmd)
	p.cmd = cmd
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", p.addr)
		if err == nil {
			conn.Close()
			return nil
		}
	}
	return fmt.Errorf("it does not listen: %s", said)
}
