package ctl

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// rule replaces what may differ between two servers that behave alike.
type rule struct {
	pattern *regexp.Regexp
	with    string
	reason  string
}

// rules are all that is not compared. Member and cluster ids, revisions, raft
// terms and hashes are not among them: they must be equal.
var rules = []rule{
	{regexp.MustCompile(`\b(took = |took )[0-9.]+(ns|µs|ms|s)\b`), "${1}<time>", "how long it took"},
	{regexp.MustCompile(`("took":")[0-9.]+(ns|µs|ms|s)"`), `${1}<time>"`, "how long it took, json"},
	{regexp.MustCompile(`\b[0-9.]+(ns|µs|ms|s)( +\|)`), "<time>${2}", "how long it took, table"},
	{regexp.MustCompile(`\b3\.[0-9]+\.[0-9]+\b`), "<version>", "the server's version"},
	{regexp.MustCompile(`\b[0-9.]+ [kM]?B\b`), "<size>", "size of the database on disk"},
	{regexp.MustCompile(`("dbSize(InUse)?":)[0-9]+`), "${1}<size>", "size of the database on disk, json"},
	{regexp.MustCompile(`("DBSize(InUse)?" : )[0-9]+`), "${1}<size>", "size of the database on disk, fields"},
	{regexp.MustCompile(`("raft(Applied)?Index":)[0-9]+`), "${1}<index>", "raft index: the log also holds what members tell each other"},
	{regexp.MustCompile(`("Raft(Applied)?Index" : )[0-9]+`), "${1}<index>", "raft index, fields"},
	{regexp.MustCompile(`(\| +[0-9]+ \| +)[0-9]+( \| +)[0-9]+( \| +\|)`), "${1}<index>${2}<index>${3}", "raft index, table"},
	{regexp.MustCompile(`((?:true|false), (?:true|false), [0-9]+, )[0-9]+, [0-9]+,`), "${1}<index>, <index>,", "raft index, simple"},
	{regexp.MustCompile(`\bremaining\([0-9]+s\)`), "remaining(<seconds>s)", "time that passes between grant and question"},
	{regexp.MustCompile(`("ttl":)(2[0-9][0-9]|300)\b`), "${1}<seconds>", "remaining time, json"},
	{regexp.MustCompile(`("TTL" : )(2[0-9][0-9]|300)\b`), "${1}<seconds>", "remaining time, fields"},
	{regexp.MustCompile(`"ts":"[^"]*"`), `"ts":"<time>"`, "time stamp of the client's own log"},
	{regexp.MustCompile(`client-[0-9a-f-]{36}`), "client-<id>", "random name in the client's own log"},
	{regexp.MustCompile(`\b(mylock|myelection)/[0-9a-f]{14,16}\b`), "${1}/<lease>", "lease id in the key of a lock or an election"},
	{regexp.MustCompile(`-{4,}`), "<line>", "table rules, as wide as their cells"},
	{regexp.MustCompile(` {2,}`), "  ", "table padding, as wide as its cells"},
}

// clusterRules are what else is not compared where leaders are elected.
var clusterRules = []rule{
	{regexp.MustCompile(`("raft_?[tT]erm":)[0-9]+`), "${1}<term>", "raft term: how often was elected, json"},
	{regexp.MustCompile(`("RaftTerm" : )[0-9]+`), "${1}<term>", "raft term, fields"},
	{regexp.MustCompile(`((?:true|false), (?:true|false), )[0-9]+,`), "${1}<term>,", "raft term, simple"},
	{regexp.MustCompile(`((?:true|false) \|\s+(?:true|false) \|\s+)[0-9]+( \|)`), "${1}<term>${2}", "raft term, table"},
	{regexp.MustCompile(`(?m)^\{"level":.*\n`), "", "the client's own log: which address it tried"},
	{regexp.MustCompile(`\b[0-9.]+(ns|µs|ms|s)( +│)`), "<time>${2}", "how long it took, table of 3.7"},
	{regexp.MustCompile(`\b[0-9.]+ [kM]?B( +│)`), "<size>${1}", "size, table of 3.7"},
	{regexp.MustCompile(`((?:true|false) +│ +(?:true|false) +│ +)[0-9]+( +│ +)[0-9]+( +│ +)[0-9]+( +│)`), "${1}<term>${2}<index>${3}<index>${4}", "raft term and index, table of 3.7"},
	{regexp.MustCompile(`─{2,}`), "<line>", "table rules of 3.7"},
	{regexp.MustCompile(`\b[0-9]+%`), "<percentage>", "share of the database that is free"},
	{regexp.MustCompile(` +`), " ", "an id with leading zeros is padded"},
}

// initialCluster is printed sorted by ids, one of which depends on the time.
var initialCluster = regexp.MustCompile(`ETCD_INITIAL_CLUSTER="([^"]*)"`)

func sortInitialCluster(text string) string {
	return initialCluster.ReplaceAllStringFunc(text, func(line string) string {
		members := strings.Split(initialCluster.FindStringSubmatch(line)[1], ",")
		slices.Sort(members)
		return fmt.Sprintf("ETCD_INITIAL_CLUSTER=%q", strings.Join(members, ","))
	})
}

// arranged brings lines whose order means nothing into one.
func (s step) arranged(text string) string {
	if !s.unordered {
		return text
	}
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// normalise applies the rules and names the captured ids.
func (r *runner) normalise(text string) string {
	for name, value := range r.captured {
		if name == "REV" {
			continue // a revision: it must be equal
		}
		for _, form := range forms(value) {
			text = strings.ReplaceAll(text, form, "<"+name+">")
		}
	}
	for _, rule := range rules {
		text = rule.pattern.ReplaceAllString(text, rule.with)
	}
	if r.cluster {
		for _, rule := range clusterRules {
			text = rule.pattern.ReplaceAllString(text, rule.with)
		}
		text = sortInitialCluster(text)
	}
	return text
}

// forms are the ways in which a lease id is printed: hexadecimal and decimal.
func forms(value string) []string {
	out := []string{value}
	if id, err := strconv.ParseUint(value, 16, 64); err == nil && len(value) == 16 {
		out = append(out, strconv.FormatUint(id, 10))
	}
	if id, err := strconv.ParseUint(value, 10, 64); err == nil {
		out = append(out, fmt.Sprintf("%016x", id), fmt.Sprintf("%x", id))
	}
	return out
}
