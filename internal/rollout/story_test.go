package rollout

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "regenerate the traces of the stories in testdata")

// A story is a text file of commands; under each stands, after "> ", what the
// decision then says. Commands:
//
//	given KEY=VALUE …      a new deployment; hook1=pause:STAGE,STAGE:TIMEOUT:continue
//	source|target KEY=N …  what is observed of a revision
//	weights production=N test=N
//	advance DURATION
//	answer HOOK yes|no REASON   what a hook says to the calls that wait
//	desired N, others N, stop, supersede, broken TEXT
//	alarm NAME|off         one of the deployment's alarms fires, or none does
//	follow                 the world does at once what is wanted
type story struct {
	s   State
	o   Observed
	w   Wanted
	now time.Time
	out strings.Builder
}

func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no stories", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			x := &story{now: time.Unix(0, 0)}
			for line := range strings.Lines(string(raw)) {
				line = strings.TrimRight(line, "\n")
				if strings.HasPrefix(line, ">") {
					continue
				}
				fmt.Fprintln(&x.out, line)
				if line == "" || strings.HasPrefix(line, "#") {
					continue
				}
				if err := x.command(line); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(x.out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got := x.out.String(); got != string(raw) {
				t.Errorf("the story goes otherwise (run with -rewrite to see):\n%s", diff(string(raw), got))
			}
		})
	}
}

func diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n want %s\n got  %s", i+1, a, b)
		}
	}
	return ""
}

func (x *story) command(line string) error {
	words := strings.Fields(line)
	args := map[string]string{}
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		args[k] = v
	}
	number := func(k string) int { n, _ := strconv.Atoi(args[k]); return n }
	length := func(k string) time.Duration { d, _ := time.ParseDuration(args[k]); return d }
	counts := func(c *Counts) {
		for k, p := range map[string]*int{"pending": &c.Pending, "running": &c.Running, "healthy": &c.Healthy, "failed": &c.FailedToStart, "unhealthy": &c.FailedUnhealthy} {
			if _, ok := args[k]; ok {
				*p = number(k)
			}
		}
	}
	switch words[0] {
	case "given":
		c := Config{
			Strategy: Strategy(args["strategy"]), CanaryShare: Permille(number("canary")), CanaryBake: length("canaryBake"),
			StepShare: Permille(number("step")), StepBake: length("stepBake"), Bake: length("bake"), Settle: length("settle"),
			MinimumHealthy: 100, Maximum: 200,
			Traffic: args["strategy"] != "ROLLING" && args["traffic"] != "no", TestTraffic: args["test"] == "yes",
			Breaker: Breaker{
				Enabled: args["breaker"] != "", Rollback: args["breaker"] == "rollback",
				Threshold: ThresholdType(args["threshold"]), Value: number("value"), KeepOnHealthy: args["keep"] == "yes",
			},
			Alarms: Alarms{Enabled: args["alarms"] != "", Rollback: args["alarms"] == "rollback"},
		}
		if _, ok := args["early"]; ok {
			c.Early = Early{Enabled: true, Healthy: number("early"), Deferred: args["cleanup"] == "DEFERRED"}
		}
		if _, ok := args["min"]; ok {
			c.MinimumHealthy, c.Maximum = number("min"), number("max")
		}
		var hooks []Hook
		for i := 1; args[fmt.Sprint("hook", i)] != ""; i++ {
			h, err := hookOf(args[fmt.Sprint("hook", i)])
			if err != nil {
				return err
			}
			hooks = append(hooks, h)
		}
		if hooks != nil {
			c.Hooks = &Hooks{hooks}
		}
		n := number("desired")
		hasSource := args["source"] != "no"
		x.o = Observed{Desired: n, Alarms: args["firing"]}
		if hasSource {
			x.o.Source = Counts{Running: n, Healthy: n}
		}
		x.s = Begin(c, hasSource, args["reconcile"] == "yes")
		x.o.Others = Counts{Running: number("others"), Healthy: number("others")}
	case "source":
		counts(&x.o.Source)
	case "target":
		counts(&x.o.Target)
	case "weights":
		x.o.Production, x.o.Test = Permille(number("production")), Permille(number("test"))
	case "desired":
		x.o.Desired, _ = strconv.Atoi(words[1])
	case "others":
		n, _ := strconv.Atoi(words[1])
		x.o.Others = Counts{Running: n, Healthy: n}
	case "advance":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			return err
		}
		x.now = x.now.Add(d)
	case "answer":
		n, err := strconv.Atoi(words[1])
		if err != nil || x.s.Calls == nil {
			return fmt.Errorf("nobody waits for hook %s", words[1])
		}
		x.o.Answers = answers(x.o.Answers, x.s, n-1, words[2] == "yes", strings.Join(words[3:], " "))
	case "alarm":
		x.o.Alarms = strings.TrimPrefix(words[1], "off")
	case "stop":
		x.o.Stop = true
	case "supersede":
		x.o.Superseded = true
	case "broken":
		x.o.Broken = strings.Join(words[1:], " ")
	case "follow":
		for range 100 {
			before := x.o
			x.o = ideal(x.o, x.w)
			x.decide()
			if x.o == before {
				return nil
			}
		}
		return fmt.Errorf("no end")
	default:
		return fmt.Errorf("no such command")
	}
	x.decide()
	return nil
}

// hookOf reads KIND:STAGE,STAGE:TIMEOUT[:continue].
func hookOf(text string) (Hook, error) {
	parts := strings.Split(text, ":")
	if len(parts) < 3 {
		return Hook{}, fmt.Errorf("a hook is KIND:STAGES:TIMEOUT, got %q", text)
	}
	timeout, err := time.ParseDuration(parts[2])
	h := Hook{Pause: parts[0] == "pause", Timeout: timeout, Continue: len(parts) > 3}
	for _, stage := range strings.Split(parts[1], ",") {
		h.Stages = append(h.Stages, Stage(stage))
	}
	return h, err
}

// answers adds a hook's answer to all calls of it that wait.
func answers(before *Answers, s State, hook int, ok bool, reason string) *Answers {
	var list []Answer
	if before != nil {
		list = append(list, before.List...)
	}
	for _, c := range s.Calls.List {
		if c.Hook == hook && c.Status == Waiting {
			list = append(list, Answer{c.Hook, c.Stage, c.Step, c.Back, ok, reason})
		}
	}
	return &Answers{list}
}

func ideal(o Observed, w Wanted) Observed {
	o.Source.Running, o.Source.Healthy, o.Source.Pending = w.Source, w.Source, 0
	o.Target.Running, o.Target.Healthy, o.Target.Pending = w.Target, w.Target, 0
	o.Production, o.Test, o.Others = w.Production, w.Test, Counts{Running: w.Others, Healthy: w.Others}
	return o
}

func (x *story) decide() {
	x.s, x.w = Decide(x.s, x.o, x.now)
	for _, e := range x.w.Events {
		fmt.Fprintf(&x.out, "> %s\n", strings.TrimSpace(string(e.Kind)+" "+e.Reason))
	}
	line := fmt.Sprintf("> %s %s source=%d target=%d production=%d test=%d failures=%d", x.s.Status, x.s.Stage, x.w.Source, x.w.Target, x.w.Production, x.w.Test, x.s.Failures)
	if !x.w.WakeAt.IsZero() {
		line += " wake=" + x.w.WakeAt.Sub(x.now).String()
	}
	if x.s.Calls != nil {
		for _, c := range x.s.Calls.List {
			if c.Status == Waiting {
				line += fmt.Sprintf(" waits=hook%d", c.Hook+1)
			}
		}
	}
	if x.w.Others > 0 {
		line += fmt.Sprintf(" others=%d", x.w.Others)
	}
	if x.s.Config.Alarms.Enabled {
		line += " alarms=" + string(x.s.AlarmMonitor)
	}
	fmt.Fprintln(&x.out, strings.Join(strings.Fields(line), " "))
}

// A random world obeys slowly, fails now and then, and time passes; whatever
// happens, the promises of a shifting deployment must hold.
func TestPromises(t *testing.T) {
	for seed := range uint64(3000) {
		promises(t, seed, rand.New(rand.NewPCG(seed, 1)))
	}
}

// chance is what a fuzzer makes up, and after that fair: a world that never obeys
// has no end.
type chance struct {
	left  []byte
	after rand.Source
}

func (c *chance) Uint64() uint64 {
	if len(c.left) < 8 {
		return c.after.Uint64()
	}
	n := binary.LittleEndian.Uint64(c.left)
	c.left = c.left[8:]
	return n
}

// go test ./internal/rollout -fuzz Promises -fuzztime 10m
func FuzzPromises(f *testing.F) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		raw := make([]byte, 800)
		for i := range raw {
			raw[i] = byte(r.Uint32())
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) { promises(t, 0, rand.New(&chance{raw, rand.NewPCG(3, 4)})) })
}

func promises(t *testing.T, seed uint64, r *rand.Rand) {
	t.Helper()
	strategies := []Strategy{BlueGreen, Canary, Linear, Rolling}
	c := Config{
		Strategy: strategies[r.IntN(4)], CanaryShare: Permille(1 + r.IntN(1000)), CanaryBake: time.Duration(r.IntN(10)) * time.Minute,
		StepShare: Permille(30 + r.IntN(971)), StepBake: time.Duration(r.IntN(5)) * time.Minute, Bake: time.Duration(r.IntN(10)) * time.Minute,
		TestTraffic: r.IntN(2) == 0, MinimumHealthy: r.IntN(101), Maximum: 100 + r.IntN(101),
		Breaker: Breaker{Enabled: r.IntN(2) == 0, Rollback: r.IntN(4) > 0},
		Alarms:  Alarms{Enabled: r.IntN(2) == 0, Rollback: r.IntN(4) > 0},
	}
	if c.MinimumHealthy == 100 && c.Maximum == 100 {
		c.Maximum = 200
	}
	c.Traffic = c.Strategy != Rolling
	if c.Traffic && r.IntN(2) == 0 {
		c.Settle = time.Duration(1+r.IntN(10)) * time.Minute
	}
	if c.Strategy == Rolling && r.IntN(2) == 0 {
		c.Early = Early{Enabled: true, Healthy: c.MinimumHealthy + r.IntN(101-c.MinimumHealthy), Deferred: r.IntN(2) == 0}
	}
	if r.IntN(2) == 0 {
		c.Hooks = randomHooks(r)
	}
	n := 1 + r.IntN(5)
	if c.Strategy == Rolling && n*c.Maximum/100 <= n && (n*c.MinimumHealthy+99)/100 >= n {
		c.Maximum = 200 // AWS cannot move either; that is the user's configuration
	}
	hasSource := r.IntN(5) > 0
	s := Begin(c, hasSource, false)
	o := Observed{Desired: n}
	if hasSource {
		o.Source = Counts{Running: n, Healthy: n}
	}
	now := time.Unix(0, 0)
	mishaps := r.IntN(8)
	var w Wanted
	for i := 0; !s.Status.Terminal(); i++ {
		if i > 5000 {
			t.Fatalf("seed %d: no end in %+v %+v", seed, s, o)
		}
		before := s
		s, w = Decide(s, o, now)
		again, w2 := Decide(s, o, now)
		if again != s || w2.Source != w.Source || w2.Target != w.Target || w2.Production != w.Production || len(w2.Events) > 0 {
			t.Fatalf("seed %d: asked twice it answered\n%+v %+v\n%+v %+v", seed, s, w, again, w2)
		}
		check(t, seed, c, n, hasSource, before, s, o, w)
		if unsettled(c, before, s, now) {
			t.Fatalf("seed %d: %s went on before its traffic had settled", seed, before.Stage)
		}
		o = drift(r, o, w, &mishaps)
		if hook := r.IntN(3); s.Calls != nil && r.IntN(4) == 0 {
			o.Answers = answers(o.Answers, s, hook, r.IntN(20) > 0, "it said no")
		}
		switch {
		case r.IntN(3) == 0 && !w.WakeAt.IsZero():
			now = w.WakeAt
		case r.IntN(4) == 0:
			now = now.Add(time.Duration(r.IntN(60)) * time.Second)
		}
		if mishaps > 0 && r.IntN(300) == 0 {
			o.Stop = true
		}
		if mishaps > 0 && r.IntN(100) == 0 {
			o.Alarms = "errors"
		}
	}
	end, _ := Decide(s, o, now.Add(time.Hour))
	if end != s {
		t.Fatalf("seed %d: a terminal deployment went on to %+v", seed, end)
	}
}

func randomHooks(r *rand.Rand) *Hooks {
	all := []Stage{ReconcileService, PreScaleUp, PostScaleUp, TestShift, PostTestShift, PreProduction, ProductionShift, PostProduction}
	h := &Hooks{}
	for range 1 + r.IntN(3) {
		hook := Hook{Pause: r.IntN(2) == 0, Timeout: time.Duration(1+r.IntN(100)) * time.Hour, Continue: r.IntN(2) == 0}
		for _, s := range all {
			if r.IntN(3) == 0 {
				hook.Stages = append(hook.Stages, s)
			}
		}
		h.List = append(h.List, hook)
	}
	return h
}

func check(t *testing.T, seed uint64, c Config, n int, hasSource bool, before, s State, o Observed, w Wanted) {
	t.Helper()
	if w.Production < 0 || w.Production > All || w.Test < 0 || w.Test > All || w.Source < 0 || w.Target < 0 {
		t.Fatalf("seed %d: levels out of range: %+v", seed, w)
	}
	if s.Status == InProgress && s.Production < before.Production {
		t.Fatalf("seed %d: the target's weight fell without a rollback", seed)
	}
	if c.Strategy == Rolling {
		if s.Status == Successful && before.Status == InProgress && o.Target.Healthy < c.Early.required(n) {
			t.Fatalf("seed %d: a success with %d healthy tasks", seed, o.Target.Healthy)
		}
		if s.Status == InProgress && !s.Settled && w.Source+w.Target > max(n*c.Maximum/100, o.Source.Active()+o.Target.Active()) {
			t.Fatalf("seed %d: %d+%d tasks over the maximum", seed, w.Source, w.Target)
		}
		return
	}
	if s.Calls != nil {
		for _, call := range s.Calls.List {
			if call.Status != Waiting {
				continue
			}
			if s.Status != InProgress && !(s.Status == RollbackInProgress && call.Back) {
				t.Fatalf("seed %d: %s waits for a hook", seed, s.Status)
			}
			if call.Stage != s.Stage && !call.Back {
				t.Fatalf("seed %d: the stage %s was left while its hook had not answered", seed, call.Stage)
			}
		}
	}
	if s.Status == InProgress && hasSource && s.Stage != CleanUp && w.Source != n {
		t.Fatalf("seed %d: the source was cut to %d in %s", seed, w.Source, s.Stage)
	}
	if before.Production < s.Production && o.Target.Healthy < n && before.Stage != ProductionShift && before.Step == 0 && before.Stage == ScaleUp {
		t.Fatalf("seed %d: traffic before the target was whole", seed)
	}
	if s.Status == RollbackInProgress && o.Production > 0 && w.Target < o.Target.Active() {
		t.Fatalf("seed %d: tasks were stopped before the traffic was back", seed)
	}
}

// unsettled says that a shift of traffic was left, or its bake begun, before its
// weights had been in force for long enough.
func unsettled(c Config, before, s State, now time.Time) bool {
	shift := before.Stage == ProductionShift || before.Stage == TestShift && c.TestTraffic
	goesOn := s.Stage != before.Stage || s.Shifted != before.Shifted
	return s.Status == InProgress && shift && goesOn && (c.Settle > 0 && before.Moved.IsZero() || now.Sub(before.Moved) < c.Settle)
}

// drift moves the world a little towards what is wanted.
func drift(r *rand.Rand, o Observed, w Wanted, mishaps *int) Observed {
	for _, p := range []struct {
		c    *Counts
		want int
	}{{&o.Source, w.Source}, {&o.Target, w.Target}} {
		switch {
		case p.c.Active() < p.want && r.IntN(2) == 0:
			p.c.Pending++
		case p.c.Active() > p.want && p.c.Pending > 0:
			p.c.Pending--
		case p.c.Active() > p.want && p.c.Running > 0:
			p.c.Running--
			p.c.Healthy = min(p.c.Healthy, p.c.Running)
		case p.c.Pending > 0:
			p.c.Pending--
			if *mishaps > 0 && r.IntN(10) == 0 {
				*mishaps--
				p.c.FailedToStart++
			} else {
				p.c.Running++
			}
		case p.c.Healthy < p.c.Running:
			p.c.Healthy++
		case *mishaps > 0 && p.c.Running > 0 && r.IntN(30) == 0:
			*mishaps--
			p.c.Running--
			p.c.Healthy--
			p.c.FailedUnhealthy++
		}
	}
	if r.IntN(2) == 0 {
		o.Production, o.Test = w.Production, w.Test
	}
	return o
}

func TestPreviewTellsWhenWhatHappens(t *testing.T) {
	moments := Preview(Config{Strategy: Canary, CanaryShare: 100, CanaryBake: 10 * time.Minute, Bake: 5 * time.Minute, Traffic: true}, 2, true)
	var shifts []string
	for _, m := range moments {
		shifts = append(shifts, fmt.Sprintf("%v:%d", m.At, m.Production))
	}
	last := moments[len(moments)-1]
	if last.At != 15*time.Minute || last.Production != All || last.Source != 0 || last.Target != 2 {
		t.Errorf("ends with %+v; %v", last, shifts)
	}
}

func TestThresholds(t *testing.T) {
	for _, c := range []struct {
		b       Breaker
		desired int
		want    int
	}{
		{Breaker{}, 1, 3}, {Breaker{}, 25, 13}, {Breaker{}, 100, 50}, {Breaker{}, 800, 200},
		{Breaker{Threshold: UnboundedPercent, Value: 10}, 11, 2}, {Breaker{Threshold: Count, Value: 7}, 100, 7},
	} {
		if got := c.b.ThresholdFor(c.desired); got != c.want {
			t.Errorf("%+v at %d is %d, want %d", c.b, c.desired, got, c.want)
		}
	}
}

func TestStepsOfALinearDeployment(t *testing.T) {
	c := Config{Strategy: Linear, StepShare: 330}
	var got []Permille
	for k := 1; k <= c.Steps(); k++ {
		got = append(got, c.share(k))
	}
	if fmt.Sprint(got) != "[330 660 990 1000]" {
		t.Errorf("33 %% steps are %v", got)
	}
}
