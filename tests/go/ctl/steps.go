// Package ctl asks etcdctl the same things of etcd and of the server under test,
// and compares what it prints, command by command: etcdctl 3.4 with one member,
// 3.4 and 3.7 with three.
//
// Owns: the steps (steps.txt, steps_cluster.txt), their reading and their running.
// Never: knows what an answer should be; etcd's is the right one.
package ctl

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// step is one etcdctl command with what happens while it runs.
type step struct {
	name    string
	line    int
	words   []string
	actions []action
	capture *capture
	// newer matches what servers from 3.5 on print where 3.4 prints something else.
	newer *regexp.Regexp
	// unordered says that the order of the output's lines means nothing.
	unordered bool
}

type actionKind int

const (
	// actInput writes a line to the command's standard input.
	actInput actionKind = iota
	// actWait waits until the command has printed a number of lines.
	actWait
	// actRun runs another etcdctl command to its end.
	actRun
	// actStop sends SIGINT.
	actStop
)

type action struct {
	kind  actionKind
	text  string   // actInput: the line
	lines int      // actWait: how many
	words []string // actRun: the arguments
}

// capture takes the first group of a pattern out of a step's output.
type capture struct {
	name    string
	pattern *regexp.Regexp
}

// parse reads the format that the head of steps.txt explains.
func parse(text string) ([]step, error) {
	var steps []step
	needWords := false
	for i, line := range strings.Split(text, "\n") {
		at := func(err error) error { return fmt.Errorf("line %d: %w", i+1, err) }
		switch {
		case needWords:
			words, err := split(line)
			if err != nil {
				return nil, at(err)
			}
			steps[len(steps)-1].words = words
			needWords = false
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			steps = append(steps, step{name: line[1 : len(line)-1], line: i + 1})
			needWords = true
		case len(steps) == 0:
			return nil, at(fmt.Errorf("no step yet"))
		default:
			if err := steps[len(steps)-1].add(line); err != nil {
				return nil, at(err)
			}
		}
	}
	return steps, nil
}

// add reads a line below a step's command.
func (s *step) add(line string) error {
	if text, ok := strings.CutPrefix(line, "<|"); ok {
		s.actions = append(s.actions, action{kind: actInput, text: strings.TrimPrefix(text, " ")})
		return nil
	}
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "wait":
		n, err := strconv.Atoi(rest)
		if err != nil {
			return err
		}
		s.actions = append(s.actions, action{kind: actWait, lines: n})
	case "run":
		words, err := split(rest)
		if err != nil {
			return err
		}
		s.actions = append(s.actions, action{kind: actRun, words: words})
	case "stop":
		s.actions = append(s.actions, action{kind: actStop})
	case "unordered":
		s.unordered = true
	case "newer":
		compiled, err := regexp.Compile(rest)
		if err != nil {
			return err
		}
		s.newer = compiled
	case "capture":
		name, pattern, _ := strings.Cut(rest, " ")
		compiled, err := regexp.Compile(pattern)
		if err != nil {
			return err
		}
		s.capture = &capture{name, compiled}
	default:
		return fmt.Errorf("what is %q?", word)
	}
	return nil
}

// split takes a line apart at blanks; '…' and "…" hold words together.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %c is not closed", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
