package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"snag/netboot"
)

// server is one of those compared.
type server struct {
	name    string
	port    string // where it listens
	nat     bool
	command func(dir string) []string // nil for snag
	libs    string
}

// servers returns snag, and the peers that can be had.
func servers(cache string) []server {
	list := []server{{name: "snag", port: "9069", nat: true}}
	if cache == "" {
		return list
	}
	for _, p := range []struct {
		pkg, path string
		args      []string // DIR stands for the directory of the files
	}{
		{"tftpd-hpa", "usr/sbin/in.tftpd", []string{"--foreground", "--ipv4", "--address", ":69", "--user", "root", "--secure", "DIR"}},
		{"dnsmasq-base", "usr/sbin/dnsmasq", []string{"--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--enable-tftp",
			"--tftp-root=DIR", "--user=root", "--pid-file", "--log-facility=/dev/null", "--tftp-mtu=65535"}},
		{"atftpd", "usr/sbin/atftpd", []string{"--daemon", "--no-fork", "--user", "root", "--group", "root", "--logfile", "/dev/null", "DIR"}},
	} {
		root, err := unpack(cache, p.pkg)
		if err != nil {
			log.Printf("%s left out: %v", p.pkg, err)
			continue
		}
		list = append(list, server{
			name: strings.TrimSuffix(p.pkg, "-base"), port: "69", libs: filepath.Join(root, "usr/lib/"+triplet()) + ":" + filepath.Join(root, "lib/"+triplet()),
			command: func(dir string) []string {
				args := []string{filepath.Join(root, p.path)}
				for _, a := range p.args {
					args = append(args, strings.ReplaceAll(a, "DIR", dir))
				}
				return args
			},
		})
	}
	return list
}

// triplet is the multiarch name of this machine, where Debian keeps libraries.
func triplet() string {
	out, _ := exec.Command("dpkg-architecture", "-qDEB_HOST_MULTIARCH").Output()
	if s := strings.TrimSpace(string(out)); s != "" {
		return s
	}
	dirs, _ := filepath.Glob("/usr/lib/*-linux-gnu*")
	if len(dirs) == 0 {
		return ""
	}
	return filepath.Base(dirs[0])
}

// unpack downloads a Debian package with the libraries it needs, and unpacks all into one directory.
func unpack(cache, pkg string) (string, error) {
	root := filepath.Join(cache, pkg)
	if _, err := os.Stat(filepath.Join(root, "complete")); err == nil {
		return root, nil
	}
	debs := filepath.Join(root, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return "", err
	}
	out, err := exec.Command("apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
		"--no-breaks", "--no-replaces", "--no-enhances", "--no-pre-depends", pkg).Output()
	if err != nil {
		return "", fmt.Errorf("apt-cache: %w", err)
	}
	names := []string{"download", pkg}
	for l := range strings.Lines(string(out)) {
		// The C library is the machine's own, with its loader.
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "lib") && !strings.Contains(l, ":") && l != "libc6" && l != "libcrypt1" {
			names = append(names, l)
		}
	}
	cmd := exec.Command("apt-get", names...)
	cmd.Dir = debs
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download: %w: %s", err, bytes.TrimSpace(out))
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if out, err := exec.Command("dpkg-deb", "-x", f, root).CombinedOutput(); err != nil {
			return "", fmt.Errorf("dpkg-deb: %w: %s", err, bytes.TrimSpace(out))
		}
	}
	return root, os.WriteFile(filepath.Join(root, "complete"), nil, 0o644)
}

// serve is the process of snag's side: it serves the file named last on standard input, over and over.
func serve(names io.Reader) error {
	bootp, err := net.ListenPacket("udp4", "0.0.0.0:9067")
	if err != nil {
		return err
	}
	tftp, err := net.ListenPacket("udp4", "0.0.0.0:9069")
	if err != nil {
		return err
	}
	socket, err := netboot.Detach(tftp.(*net.UDPConn))
	if err != nil {
		return err
	}
	link := netboot.Link{BOOTP: bootp, TFTP: socket, Server: netip.PrefixFrom(serverAddr, 24), Client: clientAddr}
	stop := func() {}
	for in := bufio.NewScanner(names); in.Scan(); {
		data, err := os.ReadFile(in.Text())
		if err != nil {
			return err
		}
		stop()
		ctx, cancel := context.WithCancel(context.Background())
		idle := make(chan struct{})
		stop = func() { cancel(); <-idle }
		file := &netboot.File{Stage: "bench", Name: filepath.Base(in.Text()), Data: data}
		go func() {
			defer close(idle)
			for ctx.Err() == nil {
				_, err := netboot.Serve(ctx, link, netboot.Config{Pick: func(netboot.Client) *netboot.File { return file }})
				if err != nil && ctx.Err() == nil {
					log.Print(err)
				}
			}
		}()
		fmt.Print(".")
	}
	stop()
	return nil
}
