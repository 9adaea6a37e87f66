package config

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// show writes a tree as Python's repr does, near enough to compare.
func show(n *yaml.Node) string {
	var parts []string
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			parts = append(parts, show(n.Content[i])+": "+show(n.Content[i+1]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case yaml.SequenceNode:
		for _, c := range n.Content {
			parts = append(parts, show(c))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	if n.Tag == "!!str" {
		b, _ := json.Marshal(n.Value)
		return string(b)
	}
	return n.Value
}

var pyLiterals = []struct{ in, want string }{
	{`{}`, `{}`},
	{`{'a': 1}`, `{"a": 1}`},
	{" {\"a\" : 'b' , } ", `{"a": "b"}`},
	{`{'a': 0x10, 'b': 0o17, 'c': 0b11, 'd': 1_000, 'e': -5, 'f': +0x_f, 'g': 00}`, `{"a": 16, "b": 15, "c": 3, "d": 1000, "e": -5, "f": 15, "g": 0}`},
	{`{'a': True, 'b': False, 'c': None}`, `{"a": true, "b": false, "c": null}`},
	{`{'a': [1, 'x', [2,]], 'b': (1, 2), 'c': (3), 'd': (4,), 'e': (), 'f': []}`, `{"a": [1, "x", [2]], "b": [1, 2], "c": 3, "d": [4], "e": [], "f": []}`},
	{`{'a': {'b': {'c': 'd'}}}`, `{"a": {"b": {"c": "d"}}}`},
	{`{'a': 'it\'s', "b": "q\"", 'c': "it's", 'd': '\x41\101\u00e9\U0001F600\n\t\\ \z'}`, `{"a": "it's", "b": "q\"", "c": "it's", "d": "AAé😀\n\t\\ \\z"}`},
	{`{'a': r'C:\new\'x', 'b': u'y', 'c': R"\\"}`, `{"a": "C:\\new\\'x", "b": "y", "c": "\\\\"}`},
	{"{'a': 'b' \"c\" r'\\d', # said twice\n'e': '''f\n'g''' }", `{"a": "bc\\d", "e": "f\n'g"}`},
	{"{'a': 'b\\\nc'}", `{"a": "bc"}`},
	{`{'a': 18446744073709551616}`, `{"a": 18446744073709551616}`},
}

func TestParsePyDict(t *testing.T) {
	for _, tt := range pyLiterals {
		n, err := parsePyDict(tt.in)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
		} else if got := show(n); got != tt.want {
			t.Errorf("%s is %s, want %s", tt.in, got, tt.want)
		}
	}
}

var pyMistakes = []struct{ in, want string }{
	{`['a']`, "1:1: expected {"},
	{`{`, "1:2: expected a value, found the end"},
	{`{'a'}`, "1:5: expected : after a key"},
	{`{'a': 1 'b'}`, "1:9: expected , or }"},
	{`{'a': [1 2]}`, "1:10: expected , or ]"},
	{`{'a': spl.bin}`, `1:7: expected a value, found "spl" (text needs quotes)`},
	{`{'a': 'b}`, "1:7: a string without its closing '"},
	{"{'a':\n 'b\n'}", "2:2: a string without its closing '"},
	{`{'a': '\x4'}`, "1:8: an escape with too few digits"},
	{`{'a': '\ud800'}`, "1:8: an escape for half a surrogate pair"},
	{`{'a': '\N{DASH}'}`, `1:8: the escape \N{...} is not supported`},
	{`{'a': 017}`, `1:7: "017" is not a number`},
	{`{'a': 0x}`, `1:7: "0x" is not a number`},
	{`{'a': b'x'}`, `1:7: expected a value, found "b" (text needs quotes)`},
	{`{'a': 1} x`, "1:10: expected the end after the closing }"},
	{`{'a': open('x')}`, `1:7: expected a value, found "open" (text needs quotes)`},
	{strings.Repeat("{1: ", 40), "1:130: brackets nested more than 32 deep"},
	{`{,}`, `1:2: expected a value, found ','`},
}

func TestParsePyDictMistakes(t *testing.T) {
	for _, tt := range pyMistakes {
		if n, err := parsePyDict(tt.in); err == nil {
			t.Errorf("%s was taken: %s", tt.in, show(n))
		} else if err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", tt.in, err, tt.want)
		}
	}
}

// TestPythonAgrees has Python read the same literals, as Snagboot would.
func TestPythonAgrees(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skipf("no python3 to compare with: %v", err)
	}
	const script = `
import ast, json, sys
for text in json.load(sys.stdin):
    try:
        d = ast.literal_eval(text.strip())
        print(json.dumps(d, ensure_ascii=False) if isinstance(d, dict) else "not a dict")
    except (SyntaxError, ValueError, TypeError) as e:
        print("error")
`
	var asked []string
	for _, tt := range pyLiterals {
		asked = append(asked, tt.in)
	}
	for _, tt := range pyMistakes {
		asked = append(asked, tt.in)
	}
	stdin, err := json.Marshal(asked)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-W", "ignore", "-c", script)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(answers) != len(asked) {
		t.Fatalf("%d answers to %d questions", len(answers), len(asked))
	}
	for i, tt := range pyLiterals {
		if answers[i] != tt.want {
			t.Errorf("Python reads %s as %s, snag as %s", tt.in, answers[i], tt.want)
		}
	}
	for i, tt := range pyMistakes {
		answer := answers[len(pyLiterals)+i]
		switch {
		case strings.HasSuffix(tt.want, "brackets nested more than 32 deep"), strings.Contains(tt.want, "escape"), strings.Contains(tt.in, "b'x'"):
			// Python may take these.
		case answer != "error" && answer != "not a dict":
			t.Errorf("Python takes %s as %s", tt.in, answer)
		}
	}
}
