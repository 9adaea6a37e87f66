package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"snag/event"
)

// JSON writes the lines that docs/json.md specifies: an object for each event, the last of which is
// "done" or "failed". Nothing follows that.
type JSON struct {
	mu    sync.Mutex
	out   out
	pace  pace
	ended bool
}

// NewJSON returns a JSON that writes to w.
func NewJSON(w io.Writer) *JSON {
	return &JSON{out: out{w: w}, pace: pace{period: 250 * time.Millisecond}}
}

// Sink is the event.Sink of j. Of a stage's progress it writes at most four lines a second, and the
// first and the last.
func (j *JSON) Sink(e event.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if p, ok := e.Body.(event.Progress); j.ended || ok && !j.pace.due(e, p) {
		return
	}
	switch e.Body.(type) {
	case event.Done, event.Failed:
		j.ended = true
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(object(e)); err != nil {
		panic(fmt.Sprintf("ui: %T: %v", e.Body, err)) // none of the types below can fail
	}
	j.out.write(b.String())
}

// Close returns the first error of writing.
func (j *JSON) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.err
}

// The objects of docs/json.md.
type (
	jsonHead struct {
		Time  string `json:"time"`
		Event string `json:"event"`
		Port  string `json:"port"`
		SoC   string `json:"soc"`
		Stage string `json:"stage"`
	}
	jsonWaiting struct {
		jsonHead
		For     string  `json:"for"`
		Timeout float64 `json:"timeout_s"`
	}
	jsonBoard struct {
		jsonHead
		ID      string `json:"id"`
		Product string `json:"product"`
		Device  string `json:"device"`
	}
	jsonStage struct {
		jsonHead
		File  string `json:"file"`
		Bytes int64  `json:"bytes"`
	}
	jsonProgress struct {
		jsonHead
		Bytes int64   `json:"bytes"`
		Total int64   `json:"total"`
		Rate  float64 `json:"rate"`
	}
	jsonStageDone struct {
		jsonHead
		File     string  `json:"file"`
		Bytes    int64   `json:"bytes"`
		Duration float64 `json:"duration_s"`
		Retries  int     `json:"retries"`
	}
	jsonText struct {
		jsonHead
		Text string `json:"text"`
	}
	jsonFuse struct {
		jsonHead
		Bank  int    `json:"bank"`
		Word  int    `json:"word"`
		Name  string `json:"name"`
		Value uint32 `json:"value"`
		Mask  uint32 `json:"mask"`
		Found uint32 `json:"found"`
		State string `json:"state"`
	}
	jsonEnd struct {
		jsonHead
		ExitCode int           `json:"exit_code"`
		Duration float64       `json:"duration_s"`
		Stages   []jsonSummary `json:"stages"`
	}
	jsonFailed struct {
		jsonHead
		Error    string        `json:"error"`
		Hint     string        `json:"hint"`
		ExitCode int           `json:"exit_code"`
		Duration float64       `json:"duration_s"`
		Stages   []jsonSummary `json:"stages"`
	}
	jsonSummary struct {
		Stage    string  `json:"stage"`
		File     string  `json:"file"`
		Bytes    int64   `json:"bytes"`
		Duration float64 `json:"duration_s"`
		Retries  int     `json:"retries"`
	}
)

func object(e event.Event) any {
	h := jsonHead{
		Time:  e.Time.Format("2006-01-02T15:04:05.000Z07:00"),
		Event: e.Body.Kind(),
		Port:  e.Port, SoC: e.SoC, Stage: e.Stage,
	}
	switch b := e.Body.(type) {
	case event.Waiting:
		return jsonWaiting{h, b.For, millis(b.Deadline)}
	case event.BoardSeen:
		return jsonBoard{h, b.ID, b.Product, b.Device}
	case event.StageBegun:
		return jsonStage{h, b.File, b.Bytes}
	case event.Progress:
		return jsonProgress{h, b.Bytes, b.Total, math.Round(finite(b.Rate))}
	case event.StageDone:
		s := b.Summary
		return jsonStageDone{h, s.File, s.Bytes, millis(s.Duration), s.Retries}
	case event.Note:
		return jsonText{h, b.Text}
	case event.Warning:
		return jsonText{h, b.Text}
	case event.Fuse:
		return jsonFuse{h, b.Bank, b.Word, b.Name, b.Value, b.Mask, b.Found, b.State}
	case event.Done:
		return jsonEnd{h, 0, millis(b.Duration), summaries(b.Stages)}
	case event.Failed:
		text := "unknown error"
		if b.Err != nil {
			text = b.Err.Error()
		}
		return jsonFailed{h, text, b.Hint, b.ExitCode, millis(b.Duration), summaries(b.Stages)}
	}
	return h
}

func summaries(stages []event.StageSummary) []jsonSummary {
	out := []jsonSummary{} // never null
	for _, s := range stages {
		out = append(out, jsonSummary{s.Stage, s.File, s.Bytes, millis(s.Duration), s.Retries})
	}
	return out
}

// millis is d in seconds, to the millisecond.
func millis(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
