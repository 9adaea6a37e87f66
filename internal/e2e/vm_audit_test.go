package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"snag/internal/lab"
	"snag/sim/am335x"
)

// TestWithUdevAudit has the kernel tell of every capability that it grants: to an ordinary user's
// recovery it grants none over the host but CAP_NET_ADMIN, and that to the helper alone. Root's
// recovery, in the same trace, shows that others would have been seen.
func TestWithUdevAudit(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	fw := generateSized(t, 4, 16<<10, 32<<10)
	audit := startAudit(t)
	recover := func(p *program) int {
		board, _, unplug := plugged(t, am335x.Config{}, "")
		if code := p.exit(t, 3*time.Minute); code != 0 {
			t.Errorf("exit code %d\n%s", code, p)
		}
		fw.booted(t, board)
		unplug()
		return p.Process.Pid
	}
	byUser := recover(start(t, user, "recover", "-s", "am335x", "-f", fw.config))
	byRoot := recover(start(t, nil, "recover", "-s", "am335x", "-f", fw.config))
	trace := audit()

	used := 0
	for _, g := range grants(t, trace, byUser) {
		switch {
		case !g.initial: // over a namespace of his own
		case g.program == helperPath && g.capability == unix.CAP_NET_ADMIN:
			used++
		default:
			t.Errorf("the user's process %d (%s) was granted capability %d over the host", g.pid, g.program, g.capability)
		}
	}
	if used == 0 {
		t.Error("the helper was not seen to use its capability: the trace shows nothing")
	}
	others := 0
	for _, g := range grants(t, trace, byRoot) {
		if g.initial && g.program != helperPath {
			others++
		}
	}
	if others == 0 {
		t.Error("root's recovery was not seen to use a capability: the trace shows nothing")
	}
	t.Logf("capabilities over the host: the user's helper was granted CAP_NET_ADMIN %d times, root's snag some %d times", used, others)
}

// grant is a capability that a process asked for and got.
type grant struct {
	pid        int
	program    string
	capability int
	initial    bool // over the initial user namespace
}

// startAudit traces cap_capable, the function of the kernel that decides every question for a
// capability (security/commoncap.c): entry with the user namespace and the capability in question, and
// return value, 0 if it is granted. What starts what is traced as well. The function that is returned
// ends it.
func startAudit(t *testing.T) func() string {
	t.Helper()
	const tracing, instance = "/sys/kernel/tracing", "/sys/kernel/tracing/instances/snag"
	write := func(file, text string) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, err = f.WriteString(text)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(tracing+"/kprobe_events", "p:snag/ask cap_capable ns=$arg2:x64 cap=$arg3:s32\n")
	write(tracing+"/kprobe_events", "r:snag/answer cap_capable ret=$retval:s32\n")
	if err := os.Mkdir(instance, 0o700); err != nil {
		t.Fatal(err)
	}
	write(instance+"/buffer_size_kb", "32768")
	events := []string{"snag/ask", "snag/answer", "sched/sched_process_fork", "sched/sched_process_exec"}
	for _, e := range events {
		write(instance+"/events/"+e+"/enable", "1")
	}
	end := func() {
		for _, e := range events {
			write(instance+"/events/"+e+"/enable", "0")
		}
	}
	t.Cleanup(func() {
		end()
		os.Remove(instance)
		write(tracing+"/kprobe_events", "-:snag/ask\n")
		write(tracing+"/kprobe_events", "-:snag/answer\n")
	})
	return func() string {
		t.Helper()
		end()
		stats, _ := filepath.Glob(instance + "/per_cpu/cpu*/stats")
		for _, file := range stats {
			b, err := os.ReadFile(file)
			if err != nil || !strings.Contains(string(b), "\noverrun: 0\n") || !strings.Contains(string(b), "\ndropped events: 0\n") {
				t.Errorf("the trace is not complete: %v\n%s", err, b)
			}
		}
		profile, err := os.ReadFile(tracing + "/kprobe_profile") // name, hits, misses
		for line := range strings.Lines(string(profile)) {
			if f := strings.Fields(line); len(f) != 3 || f[2] != "0" {
				t.Errorf("the trace is not complete: %s", line)
			}
		}
		trace, err2 := os.ReadFile(instance + "/trace")
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		return string(trace)
	}
}

// A line of the trace: "  snag-217   [000] d..1.  12.345678: ask: (cap_capable+0x0/0x90) ns=0x... cap=12".
var (
	traceLine = regexp.MustCompile(`^ *.*-(\d+) +\[\d+\] \S+ +[\d.]+: (\w+): (.*)$`)
	traceArg  = regexp.MustCompile(`(\w+)=(\S+)`)
)

// grants are the capabilities that were granted to a program and all that it started.
func grants(t *testing.T, trace string, pid int) []grant {
	t.Helper()
	initial := kernelSymbol(t, "init_user_ns")
	program := make(map[int]string) // of the threads that belong to it
	asked := make(map[int]grant)
	var all []grant
	asks := 0
	for line := range strings.Lines(trace) {
		m := traceLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
				t.Fatalf("trace line %q", line)
			}
			continue
		}
		thread, _ := strconv.Atoi(m[1])
		arg := make(map[string]string)
		for _, a := range traceArg.FindAllStringSubmatch(m[3], -1) {
			arg[a[1]] = a[2]
		}
		number := func(name string) int {
			n, err := strconv.ParseInt(arg[name], 10, 64)
			if err != nil {
				t.Fatalf("trace line %q: %v", line, err)
			}
			return int(n)
		}
		switch m[2] {
		case "sched_process_fork":
			if p, ok := program[number("pid")]; ok {
				program[number("child_pid")] = p
			} else {
				delete(program, number("child_pid"))
			}
		case "sched_process_exec":
			n := number("pid")
			if _, ok := program[n]; ok || n == pid { // before it, the test's own child was root
				program[n] = arg["filename"]
			}
		case "ask":
			p, ok := program[thread]
			ns, err := strconv.ParseUint(arg["ns"], 0, 64)
			if err != nil {
				t.Fatalf("trace line %q: %v", line, err)
			}
			if ok {
				asks++
				asked[thread] = grant{thread, p, number("cap"), ns == initial}
			}
		case "answer":
			if g, ok := asked[thread]; ok && number("ret") == 0 {
				all = append(all, g)
			}
			delete(asked, thread)
		}
	}
	t.Logf("process %d and its children: %d threads, %d questions for a capability, %d granted", pid, len(program), asks, len(all))
	return all
}

// kernelSymbol is the address of a symbol of the kernel's.
func kernelSymbol(t *testing.T, name string) uint64 {
	t.Helper()
	b, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(b), " "+name+"\n") // "ffffffff82e5a4c0 D init_user_ns"
	before := string(b[:max(0, len(b)-len(after)-len(name)-2)])
	address, err := strconv.ParseUint(strings.Fields(before[strings.LastIndexByte(before, '\n')+1:] + " x")[0], 16, 64)
	if !ok || err != nil || address == 0 {
		t.Fatalf("the kernel does not tell where %s is", name)
	}
	return address
}
