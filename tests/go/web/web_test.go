// Package web drives the HTTP side: health, version, metrics, on the client
// listener that gRPC shares and on the metrics listener.
package web

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const testTimeout = 30 * time.Second

func TestMain(m *testing.M) { harness.Main(m) }

type reply struct {
	code        int
	contentType string
	body        string
}

func ask(t testing.TB, method, addr, path string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(harness.Context(t, testTimeout), method, "http://"+addr+path, nil)
	harness.Fatal(t, err)
	resp, err := http.DefaultClient.Do(req)
	harness.Fatal(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	harness.Fatal(t, err)
	return reply{resp.StatusCode, resp.Header.Get("Content-Type"), string(body)}
}

func get(t testing.TB, addr, path string) reply {
	t.Helper()
	return ask(t, http.MethodGet, addr, path)
}

// both runs a check against the client listener and the metrics listener.
func both(t *testing.T, s *harness.Server, check func(t *testing.T, addr string)) {
	t.Run("client listener", func(t *testing.T) { check(t, s.Addr) })
	t.Run("metrics listener", func(t *testing.T) { check(t, s.MetricsAddr) })
}

const (
	healthy   = `{"health":"true","reason":""}`
	plainText = "text/plain; charset=utf-8"
)

func TestHealth(t *testing.T) {
	s := harness.Shared(t)
	both(t, s, func(t *testing.T, addr string) {
		for _, query := range []string{"", "?serializable=true", "?serializable=false", "?exclude=NOSPACE", "?exclude=NOSPACE&exclude=CORRUPT", "?unknown=1"} {
			got := get(t, addr, "/health"+query)
			harness.Equal(t, "/health"+query, got, reply{200, plainText, healthy})
		}
		post := ask(t, http.MethodPost, addr, "/health")
		harness.Equal(t, "POST", fmt.Sprint(post.code, " ", strings.TrimSpace(post.body)), "405 Method Not Allowed")
	})
}

func TestHealthWithAlarm(t *testing.T) {
	s := harness.Start(t)
	ctx := harness.Context(t, testTimeout)
	alarm := func(action pb.AlarmRequest_AlarmAction, kind pb.AlarmType) {
		status, err := pb.NewMaintenanceClient(s.Conn(t)).Status(ctx, &pb.StatusRequest{})
		harness.Fatal(t, err)
		_, err = pb.NewMaintenanceClient(s.Conn(t)).Alarm(ctx, &pb.AlarmRequest{Action: action, MemberID: status.Header.MemberId, Alarm: kind})
		harness.Fatal(t, err)
	}
	alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_NOSPACE)
	unhealthy := `{"health":"false","reason":"ALARM NOSPACE"}` + "\n"
	harness.Equal(t, "with the alarm", get(t, s.Addr, "/health"), reply{503, plainText, unhealthy})
	harness.Equal(t, "excluded", get(t, s.Addr, "/health?exclude=NOSPACE"), reply{200, plainText, healthy})
	harness.Equal(t, "another excluded", get(t, s.Addr, "/health?exclude=CORRUPT"), reply{503, plainText, unhealthy})
	alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_NOSPACE)
	harness.Equal(t, "after it", get(t, s.Addr, "/health"), reply{200, plainText, healthy})
	if s.Older("3.6") {
		return
	}
	harness.Equal(t, "ready", get(t, s.Addr, "/readyz").code, 200)
	alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_CORRUPT)
	harness.Equal(t, "corrupt: not ready", get(t, s.Addr, "/readyz").code, 503)
	harness.Equal(t, "corrupt: alive", get(t, s.Addr, "/livez").code, 200)
	harness.Equal(t, "corrupt, excluded", get(t, s.Addr, "/readyz?exclude=data_corruption").code, 200)
	verbose := get(t, s.Addr, "/readyz?verbose")
	if !strings.Contains(verbose.body, "[-]data_corruption failed: alarm activated: CORRUPT\n") {
		t.Errorf("verbose: %q", verbose.body)
	}
}

// checks gives the sorted lines of a verbose reply: their order is not fixed.
func checks(body string) string {
	lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
	sort.Strings(lines)
	return strings.Join(lines, ", ")
}

func TestLivezAndReadyz(t *testing.T) {
	s := harness.Shared(t)
	s.Needs(t, "3.6")
	both(t, s, func(t *testing.T, addr string) {
		for _, path := range []string{"/livez", "/livez/serializable_read", "/readyz", "/readyz/data_corruption",
			"/readyz/serializable_read", "/readyz/linearizable_read", "/readyz/non_learner",
			"/livez?exclude=serializable_read", "/livez?exclude=unknown", "/readyz?exclude=linearizable_read&exclude=non_learner"} {
			harness.Equal(t, path, get(t, addr, path), reply{200, plainText, "ok\n"})
		}
		for path, want := range map[string]string{
			"/livez?verbose": "[+]serializable_read ok, ok",
			"/livez?verbose&exclude=serializable_read":                    "ok",
			"/readyz?verbose":                                             "[+]data_corruption ok, [+]linearizable_read ok, [+]non_learner ok, [+]serializable_read ok, ok",
			"/readyz?verbose&exclude=linearizable_read":                   "[+]data_corruption ok, [+]non_learner ok, [+]serializable_read ok, ok",
			"/readyz?verbose&exclude=data_corruption&exclude=non_learner": "[+]linearizable_read ok, [+]serializable_read ok, ok",
			"/readyz/non_learner?verbose":                                 "[+]non_learner ok, ok",
		} {
			got := get(t, addr, path)
			harness.Equal(t, path, fmt.Sprint(got.code, " ", checks(got.body)), "200 "+want)
			if !strings.HasSuffix(got.body, "ok\n") {
				t.Errorf("%s does not end with ok: %q", path, got.body)
			}
		}
		harness.Equal(t, "unknown check", get(t, addr, "/readyz/unknown").code, 404)
		harness.Equal(t, "POST", ask(t, http.MethodPost, addr, "/livez").code, 405)
	})
}

func TestVersion(t *testing.T) {
	s := harness.Shared(t)
	got := get(t, s.Addr, "/version")
	harness.Equal(t, "code", got.code, 200)
	harness.Equal(t, "type", got.contentType, "application/json")
	minor := s.Version()[:strings.LastIndex(s.Version(), ".")] + ".0"
	want := fmt.Sprintf(`{"etcdserver":%q,"etcdcluster":%q,"storage":%q}`, s.Version(), minor, minor)
	if s.Older("3.6") {
		want = fmt.Sprintf(`{"etcdserver":%q,"etcdcluster":%q}`, s.Version(), minor)
	}
	harness.Equal(t, "body", got.body, want)
	harness.Equal(t, "POST", ask(t, http.MethodPost, s.Addr, "/version").code, 405)
	harness.Equal(t, "not on the metrics listener", get(t, s.MetricsAddr, "/version").code, 404)
	harness.Equal(t, "unknown path", get(t, s.Addr, "/unknown").code, 404)
}

func TestDebugVars(t *testing.T) {
	s := harness.Shared(t)
	got := get(t, s.Addr, "/debug/vars")
	harness.Equal(t, "code", got.code, 200)
	var vars map[string]json.RawMessage
	harness.Fatal(t, json.Unmarshal([]byte(got.body), &vars))
	for _, name := range []string{"cmdline", "file_descriptor_limit", "raft.status"} {
		if _, ok := vars[name]; !ok {
			t.Errorf("no %s in /debug/vars", name)
		}
	}
}
