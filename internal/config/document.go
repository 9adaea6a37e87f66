package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// yamlError is how the yaml package words its errors.
var yamlError = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`) })

// Document parses a text that is one YAML document. What it begins with the error tells if it is empty; where in it
// something is wrong tell line and col, as far as that is known.
func Document(text []byte, begins string) (root *yaml.Node, line, col int, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	err = dec.Decode(&doc)
	if err == io.EOF || err == nil && len(doc.Content) == 0 {
		return nil, 0, 0, errors.New("empty: expected " + begins)
	}
	if err == nil {
		switch err = dec.Decode(&second); err {
		case io.EOF:
			return doc.Content[0], 0, 0, nil
		case nil:
			return nil, second.Line, second.Column, errors.New("a second YAML document: expected one")
		}
	}
	m := yamlError().FindStringSubmatch(err.Error())
	if m == nil {
		return nil, 0, 0, err
	}
	line, _ = strconv.Atoi(m[1])
	if lines := strings.Split(string(text), "\n"); line > 0 && line <= len(lines) && strings.HasPrefix(strings.TrimLeft(lines[line-1], " "), "\t") {
		return nil, line, 0, errors.New("a tab at its beginning: YAML is indented with spaces")
	}
	return nil, line, 0, errors.New("not YAML: " + m[2])
}
