package ec2d

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// machine is an instance that ECS or an Auto Scaling group launched: it has a type,
// a place and an address, and nothing runs on it but what ECS says. ECS is the
// operator of its own.
type machine struct {
	ID, Type, Zone, Subnet, VPC string
	Group                       string // the Auto Scaling group; empty: it is ECS's
	Address                     string
	Groups                      []string
	Spot                        bool
	Launched, Ended             time.Time
	Tags                        []tags.Tag
}

// Machine is an instance to launch.
type Machine struct {
	Type, Zone, Subnet string
	Group              string // the Auto Scaling group that it is of
	Groups             []string
	Spot               bool
	At                 time.Time
	Tags               []tags.Tag
}

// MissingError is a subnet or security group that is not there.
type MissingError struct{ What, ID string }

func (e *MissingError) Error() string {
	if e.What == "subnet" {
		return "The subnet ID '" + e.ID + "' does not exist"
	}
	return "The " + e.What + " '" + e.ID + "' does not exist"
}

// Code is EC2's.
func (e *MissingError) Code() string {
	if e.What == "subnet" {
		return "InvalidSubnetID.NotFound"
	}
	return "InvalidGroup.NotFound"
}

// Network is the zone of each subnet, and the VPC that they and the groups are of.
func (a *API) Network(scope arn.Scope, subnets, groups []string) (zones map[string]string, vpc string, err error) {
	zones = map[string]string{}
	a.store.View(func(tx *store.Tx) {
		for _, name := range subnets {
			s, ok := a.subnets.Get(tx, scope.Key(name))
			switch {
			case !ok:
				err = &MissingError{"subnet", name}
			case vpc != "" && vpc != s.VPC:
				err = fail("InvalidParameterValue", "The subnets %s are not all of one VPC.", strings.Join(subnets, ", "))
			}
			if err != nil {
				return
			}
			zones[name], vpc = s.Zone, s.VPC
		}
		for _, name := range groups {
			g, ok := a.groups.Get(tx, scope.Key(name))
			switch {
			case !ok:
				err = &MissingError{"security group", name}
			case g.VPC != vpc:
				err = fail("InvalidParameterValue", "Security group %s does not appear to belong to the same VPC as the input subnets.", name)
			}
			if err != nil {
				return
			}
		}
	})
	return zones, vpc, err
}

// keepEnded is how long an ended instance is described; documented as about an hour.
const keepEnded = time.Hour

// Launch makes an instance with the next address of its subnet, if there is one.
func (a *API) Launch(tx *store.Tx, scope arn.Scope, m Machine) (string, error) {
	s, _ := a.subnets.Get(tx, scope.Key(m.Subnet))
	taken := map[string]bool{}
	for key, other := range a.machines.Scan(tx, scope.Key("")) {
		if !other.Ended.IsZero() && m.At.Sub(other.Ended) > keepEnded {
			a.machines.Delete(tx, key)
		}
		if other.Ended.IsZero() && other.Subnet == m.Subnet {
			taken[other.Address] = true
		}
	}
	address, ok := s.free(taken)
	if !ok {
		return "", fail("InsufficientFreeAddressesInSubnet", "There are not enough free addresses in subnet '%s' to satisfy the requested number of instances.", m.Subnet)
	}
	row := machine{
		ID: "i-" + id.Hex(17), Type: m.Type, Zone: m.Zone, Subnet: m.Subnet, VPC: s.VPC, Group: m.Group, Groups: m.Groups, Spot: m.Spot, Address: address, Launched: m.At, Tags: m.Tags,
	}
	a.machines.Put(tx, scope.Key(row.ID), row)
	return row.ID, nil
}

// free is the first address that is not taken: the first four and the last are AWS's,
// documented.
func (s subnet) free(taken map[string]bool) (address string, ok bool) {
	p, err := netip.ParsePrefix(s.CIDR)
	if err != nil {
		return "", false
	}
	at := p.Addr()
	for range 4 {
		at = at.Next()
	}
	for taken[at.String()] && p.Contains(at) {
		at = at.Next()
	}
	return at.String(), p.Contains(at.Next())
}

// Terminate ends an instance.
func (a *API) Terminate(tx *store.Tx, scope arn.Scope, instance string, at time.Time) {
	if m, ok := a.machines.Get(tx, scope.Key(instance)); ok {
		m.Ended = at
		a.machines.Put(tx, scope.Key(instance), m)
	}
}

// State is an instance's state, empty when there is no such instance.
func (a *API) State(tx *store.Tx, scope arn.Scope, instance string) string {
	m, ok := a.machines.Get(tx, scope.Key(instance))
	if !ok {
		return ""
	}
	return m.view().InstanceState.Name
}

// Subnet is a subnet's zone and VPC, empty when there is no such subnet.
func (a *API) Subnet(tx *store.Tx, scope arn.Scope, subnet string) (zone, vpc string) {
	s, _ := a.subnets.Get(tx, scope.Key(subnet))
	return s.Zone, s.VPC
}

type (
	DescribeInstancesInput struct {
		InstanceIDs []string `wire:"InstanceId"`
		Filters     []Filter `wire:"Filter"`
	}
	State struct {
		Code int    `wire:"code"`
		Name string `wire:"name"`
	}
	Placement struct {
		AvailabilityZone string `wire:"availabilityZone"`
		Tenancy          string `wire:"tenancy"`
	}
	Operator struct {
		Managed   bool   `wire:"managed"`
		Principal string `wire:"principal"`
	}
	Group struct {
		GroupID string `wire:"groupId"`
	}
	Tag struct {
		Key   string `wire:"key"`
		Value string `wire:"value"`
	}
	Instance struct {
		InstanceID        string    `wire:"instanceId"`
		InstanceType      string    `wire:"instanceType"`
		InstanceState     State     `wire:"instanceState"`
		PrivateIPAddress  string    `wire:"privateIpAddress"`
		SubnetID          string    `wire:"subnetId"`
		VpcID             string    `wire:"vpcId"`
		LaunchTime        time.Time `wire:"launchTime"`
		Placement         Placement `wire:"placement"`
		InstanceLifecycle string    `wire:"instanceLifecycle"`
		GroupSet          []Group   `wire:"groupSet"`
		TagSet            []Tag     `wire:"tagSet"`
		Operator          Operator  `wire:"operator"`
	}
	Reservation struct {
		OwnerID   string     `wire:"ownerId"`
		Instances []Instance `wire:"instancesSet"`
	}
	DescribeInstancesOutput struct {
		Reservations []Reservation `wire:"reservationSet"`
	}
)

// DescribeInstances describes the instances that are named, or all that are not
// ECS's: those are not told to who names none, measured.
func (a *API) DescribeInstances(ctx context.Context, in *DescribeInstancesInput) (*DescribeInstancesOutput, error) {
	scope := wire.From(ctx).Scope
	out := &DescribeInstancesOutput{}
	var err error
	a.store.View(func(tx *store.Tx) {
		names := in.InstanceIDs
		if len(names) == 0 {
			for _, m := range a.machines.Scan(tx, scope.Key("")) {
				if m.Group != "" {
					names = append(names, m.ID)
				}
			}
		}
		for _, name := range names {
			m, ok := a.machines.Get(tx, scope.Key(name))
			if !ok {
				err = fail("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", name)
				return
			}
			v := m.view()
			if ok, err = fits(in.Filters, map[string]string{"instance-id": m.ID, "instance-type": m.Type, "availability-zone": m.Zone, "subnet-id": m.Subnet, "vpc-id": m.VPC, "instance-state-name": v.InstanceState.Name}); err != nil {
				return
			}
			if ok {
				out.Reservations = append(out.Reservations, Reservation{scope.Account, []Instance{v}})
			}
		}
	})
	return out, err
}

func (m machine) view() Instance {
	v := Instance{
		InstanceID: m.ID, InstanceType: m.Type, InstanceState: State{16, "running"}, PrivateIPAddress: m.Address, SubnetID: m.Subnet, VpcID: m.VPC, LaunchTime: m.Launched,
		Placement: Placement{m.Zone, "default"},
	}
	if m.Group == "" {
		v.Operator = Operator{true, "ecs.amazonaws.com"}
	}
	if !m.Ended.IsZero() {
		v.InstanceState, v.PrivateIPAddress = State{48, "terminated"}, ""
	}
	if m.Spot {
		v.InstanceLifecycle = "spot"
	}
	for _, g := range m.Groups {
		v.GroupSet = append(v.GroupSet, Group{g})
	}
	for _, t := range m.Tags {
		v.TagSet = append(v.TagSet, Tag{t.Key, t.Value})
	}
	slices.SortFunc(v.TagSet, func(x, y Tag) int { return strings.Compare(x.Key, y.Key) })
	return v
}
