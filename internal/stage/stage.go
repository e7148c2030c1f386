// Package stage puts the local region together: one store, one clock, the
// services, the mechanisms under them, and one port in front.
//
// It is the only place where services meet: what one needs of another is
// fitted in adapters.go. Run starts every long-lived goroutine and returns
// when all have ended.
package stage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"serin/internal/api/acmd"
	"serin/internal/api/autoscalingd"
	"serin/internal/api/cwd"
	"serin/internal/api/ec2d"
	"serin/internal/api/ecrd"
	"serin/internal/api/ecsd"
	"serin/internal/api/elbd"
	"serin/internal/api/iamd"
	"serin/internal/api/logsd"
	"serin/internal/api/stsd"
	"serin/internal/arn"
	"serin/internal/balance"
	"serin/internal/clock"
	"serin/internal/events"
	"serin/internal/metric"
	"serin/internal/oidc"
	"serin/internal/registry"
	"serin/internal/run"
	"serin/internal/store"
	"serin/internal/wire"
)

// NoFunction is how Lambda says that a function is not there.
const NoFunction = "Function not found"

// Config is what a stage is made with.
type Config struct {
	Dir       string // state; with Ephemeral, a place for images and sockets only
	Ephemeral bool
	Account   string  // 12 digits
	Region    string  // of requests that name none
	Endpoint  string  // host:port that clients use
	Speed     float64 // stage seconds in a wall second
	IAM       Mode
	Throttle  bool // refuse calls beyond AWS's rates
	// SpotInterruptions is how often Spot takes an instance back by chance: so many
	// times an hour of stage time that it runs.
	SpotInterruptions float64
	// RegistryMax is how many bytes the registry may hold, 0: as many as the disk.
	RegistryMax int64
	// Function invokes what stands in for a Lambda function.
	Function func(ctx context.Context, functionARN string, payload []byte) ([]byte, error)
	Secrets  Secrets // that tasks may be given; nil: none
	// EventsTo is where events are posted, "": nowhere.
	EventsTo string
	// Upstream is a registry that the pull through cache is in front of.
	Upstream func(host string) (*registry.Remote, error)
	// Network is where load balancers listen and tasks are; nil: this machine.
	Network balance.Network
	// Restart is called before the stage ends to be started again by whoever runs it,
	// on the sockets that it had; nil: nobody does that.
	Restart func()
	Log     *slog.Logger
	// Runtime opens what runs tasks; it is called once, by Run, so that a probe
	// does not keep callers waiting.
	Runtime func(context.Context, run.Config) (run.Runtime, string, error)
}

// Mode is what is done with a denial.
type Mode string

const (
	Enforce Mode = "enforce" // refuse
	Report  Mode = "report"  // note it and go on
	Off     Mode = "off"     // do not ask
)

// Stage is a local region.
type Stage struct {
	config   Config
	log      *slog.Logger
	store    *store.Store
	clock    *clock.Clock
	balance  *balance.Balancer
	blobs    *registry.Blobs
	runtime  *lateRuntime
	gateway  *wire.Gateway
	keyMu    sync.Mutex
	keys     oidc.Keys // of the played issuer, made when first used
	verifier *oidc.Verifier
	seal     seal
	secret   string // of the seal
	meta     *store.Table[meta]
	events   *events.Log
	started  time.Time

	iam  *iamd.API
	sts  *stsd.API
	ecr  *ecrd.API
	ecs  *ecsd.API
	elb  *elbd.API
	logs *logsd.API
	cw   *cwd.API
	ec2  *ec2d.API
	asg  *autoscalingd.API
	acm  *acmd.API

	// publish takes the metrics of a minute.
	publish func(arn.Scope, []metric.Datum)

	door       run.Door // where tasks reach the stage; set before any starts
	doorClosed string   // why they cannot
	taskSets   taskSets
	rates      rates // of what tasks ask
	decisions  decisions
	learned    learned
	down       chan struct{}
	again      atomic.Bool // it goes down to be started again
	once       sync.Once
	attended   sync.WaitGroup // sessions
	ending     chan struct{}  // closed when Run ends: streams end, too
}

// meta is what the stage remembers of itself.
type meta struct {
	Time time.Time // stage time, so that it never goes back
	Keys string    // the issuer's keys
	Seal string    // secret of encoded authorization messages
}

// New opens a stage's state. It starts nothing.
func New(c Config) (*Stage, error) {
	if !arn.IsAccount(c.Account) {
		return nil, fmt.Errorf("the account must have 12 digits, got %q", c.Account)
	}
	if c.Upstream == nil {
		c.Upstream = func(host string) (*registry.Remote, error) {
			return nil, fmt.Errorf("this stage reaches no other registry, and not %s", host)
		}
	}
	if c.Function == nil {
		c.Function = func(context.Context, string, []byte) ([]byte, error) {
			return nil, fmt.Errorf("%s: this stage has no stand-ins for functions", NoFunction)
		}
	}
	s := &Stage{config: c, log: c.Log, started: time.Now(), down: make(chan struct{}), ending: make(chan struct{})}
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Stage) open() (err error) {
	c := s.config
	if s.store = store.Ephemeral(); !c.Ephemeral {
		if s.store, err = store.Open(c.Dir); err != nil {
			return err
		}
	}
	defer func() {
		if err != nil {
			s.store.Close()
		}
	}()
	s.meta = store.NewTable[meta](s.store, "stage/meta")
	s.events = events.NewLog(s.store, events.Most)
	// The tables want the clock and the clock wants a row, so the clock is made
	// first and pushed to where it was.
	if s.clock, err = clock.New(c.Speed); err != nil {
		return err
	}
	s.balance = balance.New(s.clock, c.Log)
	if c.Network != nil {
		s.balance.Network = c.Network
	}
	s.runtime = newLateRuntime()
	s.blobs, err = registry.Open(filepath.Join(c.Dir, "registry"), c.RegistryMax)
	if err != nil {
		return err
	}
	s.verifier = &oidc.Verifier{Own: s.knownKeys}
	s.iam = iamd.New(s.store)
	s.sts = stsd.New(s.store, stsd.Deps{IAM: stsIAM{s.iam}, Trust: s.trust, Admitted: s.learned.admitted, Decode: func(m string) (string, bool) { return s.seal.open(m) }}, s.verifier)
	s.ecr = ecrd.New(s.store, s.clock, c.Log, s.blobs, ecrd.Deps{Authorize: s.authorize, Session: s.registrySession, Upstream: c.Upstream})
	s.ecr.Endpoint = c.Endpoint
	if s.logs, err = logsd.New(s.store, s.clock, filepath.Join(c.Dir, "logs")); err != nil {
		return err
	}
	s.cw = cwd.New(s.store, s.clock)
	s.ec2 = ec2d.New(s.store)
	s.acm = acmd.New(s.store, s.clock)
	s.elb = elbd.New(s.store, s.clock, s.balance, elbd.Deps{
		LinkedRole: func(c *wire.Call) error { return s.linkedRole(c, "elasticloadbalancing.amazonaws.com") }, Network: s.ec2, Certificates: s.acm, LogDir: filepath.Join(c.Dir, "access-logs"),
	})
	s.acm.InUse = s.elb.CertificateUsers
	s.asg = autoscalingd.New(s.store, s.clock, autoscalingd.Deps{Machines: groupMachines{s}})
	s.publish = s.cw.Publish
	s.ecs = ecsd.New(s.store, s.clock, c.Log, s.runtime, ecsd.Deps{
		Traffic: traffic{s.elb}, Images: images{s}, Logs: logDriver{s}, Secrets: secrets{s}, Roles: roles{s}, Alarms: alarms{s.cw}, Inside: s.inside, Function: c.Function, Events: s.events,
		Machines: machines{s.ec2}, Groups: groups{s.asg}, SpotInterruptions: c.SpotInterruptions, Stream: s.streamURL,
	})
	if err = s.store.Load(); err != nil {
		return err
	}
	if err = s.resume(); err != nil {
		return err
	}
	if err = s.showAuthority(); err != nil {
		return err
	}
	if c.EventsTo != "" {
		if err = s.events.Subscribe(c.EventsTo); err != nil {
			return err
		}
	}
	s.gateway = &wire.Gateway{Log: c.Log, Authenticate: s.authenticate, Authorize: s.authorize, Region: c.Region, Account: c.Account}
	if c.Throttle {
		s.gateway.Throttle = wire.NewThrottle()
	}
	s.gateway.Serve(s.Services()...)
	return nil
}

// AuthorityFile is where the certificate of the stage's authority is, in PEM, for
// clients of HTTPS listeners.
func (s *Stage) AuthorityFile() string { return filepath.Join(s.config.Dir, "authority.pem") }

func (s *Stage) showAuthority() error {
	authority, err := s.acm.Authority()
	if err != nil {
		return err
	}
	if shown, err := os.ReadFile(s.AuthorityFile()); err == nil && string(shown) == authority {
		return nil // it can begin where the disk is full
	}
	if err := os.WriteFile(s.AuthorityFile(), []byte(authority), 0o644); err != nil {
		return fmt.Errorf("writing the authority's certificate: %w", err)
	}
	return nil
}

// resume takes up the time, the issuer's keys and the seal of an earlier run.
func (s *Stage) resume() error {
	var m meta
	s.store.View(func(tx *store.Tx) { m, _ = s.meta.Get(tx, "stage") })
	if ahead := m.Time.Sub(s.clock.Now()); ahead > 0 {
		if err := s.clock.Advance(ahead); err != nil {
			return err
		}
	}
	if s.secret = m.Seal; s.secret == "" {
		s.secret = rand.Text()
	}
	var err error
	if s.seal, err = newSeal(s.secret); err != nil {
		return err
	}
	s.keys, err = oidc.ParseKeys(m.Keys)
	return err
}

// knownKeys is the issuer's keys, if any was ever needed.
func (s *Stage) knownKeys() oidc.Keys {
	s.keyMu.Lock()
	defer s.keyMu.Unlock()
	return s.keys
}

// issuerKeys is the issuer's keys, with a new one in front if rotate says so.
// The first is made when it is first asked for, because that takes longer than
// everything else at a start.
func (s *Stage) issuerKeys(rotate bool) (oidc.Keys, error) {
	s.keyMu.Lock()
	keys := s.keys
	if rotate || len(keys) == 0 {
		var err error
		if keys, err = keys.Rotate(); err != nil {
			s.keyMu.Unlock()
			return nil, err
		}
		s.keys = keys
	}
	s.keyMu.Unlock()
	return keys, s.remember()
}

func (s *Stage) remember() error {
	// Ahead by as much as passes until the next time: a crash in between must not
	// set the clock behind the rows.
	m := meta{Time: s.clock.Now().Add(time.Duration(s.clock.Scale() * float64(rememberEvery))), Seal: s.secret, Keys: s.knownKeys().Marshal()}
	return s.store.Update(func(tx *store.Tx) error {
		s.meta.Put(tx, "stage", m)
		return nil
	})
}

// Services is every service on the wire, for the gateway and for the tests and
// tables that speak of all of them.
func (s *Stage) Services() []*wire.Service {
	return []*wire.Service{s.iam.Service(), s.sts.Service(), s.ecr.Service(), s.ecs.Service(), s.elb.Service(), s.logs.Service(), s.cw.Service(), s.ec2.Service(), s.asg.Service(), s.acm.Service()}
}

// Restarts reports whether the stage has ended to be started again in its place.
func (s *Stage) Restarts() bool { return s.again.Load() }

// Run serves on the listener until ctx ends or the stage is told to go down.
// Tasks go on after it, unless the stage is ephemeral: then they end with it.
func (s *Stage) Run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving the API: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-s.down:
			cancel()
		}
		close(s.ending)
		end, stop := context.WithTimeout(context.Background(), 2*time.Second)
		defer stop()
		if server.Shutdown(end) != nil {
			server.Close()
		}
		return nil
	})
	g.Go(func() error {
		c := run.Config{Dir: filepath.Join(s.config.Dir, "run"), Log: s.log}
		if s.config.Ephemeral {
			c.Ephemeral = s.config.Dir
		}
		r, why, err := s.config.Runtime(ctx, c)
		if err != nil {
			return err
		}
		s.log.Info("tasks run", "runtime", r.Name(), "reason", why)
		if err := s.openDoor(ctx, g, r); err != nil {
			return err
		}
		s.runtime.set(r, why)
		return s.ecs.Agent(ctx)
	})
	g.Go(func() error { return s.balance.Run(ctx) })
	g.Go(func() error { return s.elb.Run(ctx) })
	g.Go(func() error { return s.ecr.Run(ctx) })
	g.Go(func() error { return s.ecs.Control(ctx) })
	g.Go(func() error { return s.ecs.Capacity(ctx) })
	g.Go(func() error { return s.asg.Run(ctx) })
	g.Go(func() error { return s.ecs.Invoke(ctx) })
	g.Go(func() error { return s.cw.Run(ctx) })
	g.Go(func() error { return s.keepTime(ctx) })
	g.Go(func() error { return s.measureTraffic(ctx) })
	g.Go(func() error { return s.measureTasks(ctx) })
	if s.config.EventsTo != "" {
		g.Go(func() error { return s.events.Deliver(ctx, s.config.EventsTo, http.DefaultTransport, s.log) })
	}
	err := g.Wait()
	s.attended.Wait() // the server does not know them
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, s.close())
}

const (
	rememberEvery = 2 * time.Second
	sweepEvery    = time.Hour
)

// keepTime writes the stage's time down, where that is of use, and forgets old
// sessions.
func (s *Stage) keepTime(ctx context.Context) error {
	remember, sweep := time.NewTicker(rememberEvery), time.NewTicker(sweepEvery)
	defer remember.Stop()
	defer sweep.Stop()
	if s.config.Ephemeral {
		remember.Stop()
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-remember.C:
			err = s.remember()
		case now := <-sweep.C:
			err = s.sts.Sweep(now)
		}
		if err != nil {
			return err
		}
	}
}

func (s *Stage) close() error {
	var err error
	if s.config.Ephemeral {
		err = s.endTasks()
	}
	err = errors.Join(err, s.remember(), s.runtime.Close(), s.store.Close())
	if s.config.Ephemeral {
		err = errors.Join(err, os.RemoveAll(s.config.Dir))
	}
	return err
}

// endTasks stops what an ephemeral stage would leave behind.
func (s *Stage) endTasks() error {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if !s.runtime.ready() {
		return nil
	}
	tasks, err := s.runtime.Tasks(ctx)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(tasks))
	for i, t := range tasks {
		wg.Go(func() {
			if errs[i] = t.End(ctx); errs[i] != nil {
				return
			}
			for {
				st, changed := t.State()
				if st.Ended {
					errs[i] = t.Remove(ctx)
					return
				}
				select {
				case <-changed:
				case <-ctx.Done():
					errs[i] = fmt.Errorf("task %s did not end: %w", t.ID(), ctx.Err())
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Down ends Run.
func (s *Stage) Down() { s.once.Do(func() { close(s.down) }) }

// Clock is stage time.
func (s *Stage) Clock() *clock.Clock { return s.clock }
