// Package ec2d is the slice of EC2 that a release needs: VPCs, subnets and
// security groups that can be named, described, made and deleted, launch
// templates, and the instances that ECS and Auto Scaling launch.
//
// They are a pretence in one respect, and it is documented: packets do not obey
// them. Each region of an account has a default VPC, as AWS gives it. The
// shapes are written by hand because the SDK's own package takes gigabytes to
// compile.
package ec2d

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"serin/internal/arn"
	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/wire"
)

// API performs EC2's operations.
type API struct {
	store     *store.Store
	vpcs      *store.Table[vpc]
	subnets   *store.Table[subnet]
	groups    *store.Table[securityGroup]
	machines  *store.Table[machine]
	templates *store.Table[launchTemplate]
}

type vpc struct {
	ID, CIDR string
	Default  bool
}

type subnet struct {
	ID, VPC, CIDR, Zone string
	Default             bool
}

type securityGroup struct{ ID, VPC, Name, Description string }

// New adds EC2's tables to the store.
func New(s *store.Store) *API {
	return &API{store: s, vpcs: store.NewTable[vpc](s, "ec2/vpcs"), subnets: store.NewTable[subnet](s, "ec2/subnets"), groups: store.NewTable[securityGroup](s, "ec2/groups"), machines: store.NewTable[machine](s, "ec2/machines"),
		templates: store.NewTable[launchTemplate](s, "ec2/templates")}
}

// Service is EC2 on the wire.
func (a *API) Service() *wire.Service {
	s := &wire.Service{
		Name: "ec2", Signing: "ec2", Protocol: wire.EC2, Version: "2016-11-15", Namespace: "http://ec2.amazonaws.com/doc/2016-11-15/",
		Naming:  &wire.Naming{},
		Status:  map[string]int{"UnauthorizedOperation": 403},
		Invalid: func(m string) error { return fail("InvalidParameterValue", "%s", m) },
		Types:   map[string]wire.Members{"Filter": {Performed: "Name Value"}},
	}
	maps.Copy(s.Types, templateTypes)
	describe := func(action string) []wire.Check { return []wire.Check{{Action: "ec2:" + action, Resource: "*"}} }
	on := func(c *wire.Call, action, kind, id string) []wire.Check {
		return []wire.Check{{Action: "ec2:" + action, Resource: c.ARN(kind + "/" + id)}}
	}
	s.Register(
		wire.Handle("DescribeVpcs", a.DescribeVpcs, func(*wire.Call, *DescribeVpcsInput) []wire.Check { return describe("DescribeVpcs") },
			wire.Members{Performed: "VpcId Filter"}),
		wire.Handle("CreateVpc", a.CreateVpc, func(c *wire.Call, in *CreateVpcInput) []wire.Check { return on(c, "CreateVpc", "vpc", "*") },
			wire.Members{Performed: "CidrBlock"}),
		wire.Handle("DeleteVpc", a.DeleteVpc, func(c *wire.Call, in *DeleteVpcInput) []wire.Check { return on(c, "DeleteVpc", "vpc", in.VpcID) },
			wire.Members{Performed: "VpcId"}),
		wire.Handle("DescribeSubnets", a.DescribeSubnets, func(*wire.Call, *DescribeSubnetsInput) []wire.Check { return describe("DescribeSubnets") },
			wire.Members{Performed: "SubnetId Filter"}),
		wire.Handle("CreateSubnet", a.CreateSubnet, func(c *wire.Call, in *CreateSubnetInput) []wire.Check { return on(c, "CreateSubnet", "subnet", "*") },
			wire.Members{Performed: "VpcId CidrBlock AvailabilityZone"}),
		wire.Handle("DeleteSubnet", a.DeleteSubnet, func(c *wire.Call, in *DeleteSubnetInput) []wire.Check {
			return on(c, "DeleteSubnet", "subnet", in.SubnetID)
		}, wire.Members{Performed: "SubnetId"}),
		wire.Handle("DescribeSecurityGroups", a.DescribeSecurityGroups, func(*wire.Call, *DescribeSecurityGroupsInput) []wire.Check {
			return describe("DescribeSecurityGroups")
		}, wire.Members{Performed: "GroupId GroupName Filter"}),
		wire.Handle("CreateSecurityGroup", a.CreateSecurityGroup, func(c *wire.Call, in *CreateSecurityGroupInput) []wire.Check {
			return on(c, "CreateSecurityGroup", "security-group", "*")
		}, wire.Members{Performed: "GroupName GroupDescription VpcId"}),
		wire.Handle("DeleteSecurityGroup", a.DeleteSecurityGroup, func(c *wire.Call, in *DeleteSecurityGroupInput) []wire.Check {
			return on(c, "DeleteSecurityGroup", "security-group", in.GroupID)
		}, wire.Members{Performed: "GroupId"}),
		wire.Handle("DescribeInstances", a.DescribeInstances, func(*wire.Call, *DescribeInstancesInput) []wire.Check { return describe("DescribeInstances") },
			wire.Members{Performed: "InstanceId Filter"}),
		wire.Handle("DescribeAvailabilityZones", a.DescribeAvailabilityZones, func(*wire.Call, *DescribeAvailabilityZonesInput) []wire.Check {
			return describe("DescribeAvailabilityZones")
		}, wire.Members{}),
	)
	s.Register(a.templateOps()...)
	return s
}

func fail(code, format string, args ...any) error {
	return &wire.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Shapes. Names on the wire are in the tags: requests use the singular of a
// list, answers camel case.

// Filter narrows a description.
type Filter struct {
	Name   string   `wire:"Name"`
	Values []string `wire:"Value"`
}

type (
	DescribeVpcsInput struct {
		VpcIDs  []string `wire:"VpcId"`
		Filters []Filter `wire:"Filter"`
	}
	Vpc struct {
		VpcID           string `wire:"vpcId"`
		State           string `wire:"state"`
		CidrBlock       string `wire:"cidrBlock"`
		IsDefault       bool   `wire:"isDefault"`
		OwnerID         string `wire:"ownerId"`
		InstanceTenancy string `wire:"instanceTenancy"`
	}
	DescribeVpcsOutput struct {
		Vpcs []Vpc `wire:"vpcSet"`
	}
	CreateVpcInput struct {
		CidrBlock string `wire:"CidrBlock"`
	}
	CreateVpcOutput struct {
		Vpc Vpc `wire:"vpc"`
	}
	DeleteVpcInput struct {
		VpcID string `wire:"VpcId"`
	}
	Done struct {
		Return bool `wire:"return"`
	}
	DescribeSubnetsInput struct {
		SubnetIDs []string `wire:"SubnetId"`
		Filters   []Filter `wire:"Filter"`
	}
	Subnet struct {
		SubnetID         string `wire:"subnetId"`
		SubnetArn        string `wire:"subnetArn"`
		State            string `wire:"state"`
		VpcID            string `wire:"vpcId"`
		CidrBlock        string `wire:"cidrBlock"`
		AvailabilityZone string `wire:"availabilityZone"`
		DefaultForAz     bool   `wire:"defaultForAz"`
		OwnerID          string `wire:"ownerId"`
	}
	DescribeSubnetsOutput struct {
		Subnets []Subnet `wire:"subnetSet"`
	}
	CreateSubnetInput struct {
		VpcID            string `wire:"VpcId"`
		CidrBlock        string `wire:"CidrBlock"`
		AvailabilityZone string `wire:"AvailabilityZone"`
	}
	CreateSubnetOutput struct {
		Subnet Subnet `wire:"subnet"`
	}
	DeleteSubnetInput struct {
		SubnetID string `wire:"SubnetId"`
	}
	DescribeSecurityGroupsInput struct {
		GroupIDs   []string `wire:"GroupId"`
		GroupNames []string `wire:"GroupName"`
		Filters    []Filter `wire:"Filter"`
	}
	SecurityGroup struct {
		GroupID          string `wire:"groupId"`
		GroupName        string `wire:"groupName"`
		GroupDescription string `wire:"groupDescription"`
		VpcID            string `wire:"vpcId"`
		OwnerID          string `wire:"ownerId"`
	}
	DescribeSecurityGroupsOutput struct {
		SecurityGroups []SecurityGroup `wire:"securityGroupInfo"`
	}
	CreateSecurityGroupInput struct {
		GroupName   string `wire:"GroupName"`
		Description string `wire:"GroupDescription"`
		VpcID       string `wire:"VpcId"`
	}
	CreateSecurityGroupOutput struct {
		Return  bool   `wire:"return"`
		GroupID string `wire:"groupId"`
	}
	DeleteSecurityGroupInput struct {
		GroupID string `wire:"GroupId"`
	}
	DescribeAvailabilityZonesInput struct{}
	Zone                           struct {
		ZoneName   string `wire:"zoneName"`
		ZoneID     string `wire:"zoneId"`
		ZoneState  string `wire:"zoneState"`
		RegionName string `wire:"regionName"`
	}
	DescribeAvailabilityZonesOutput struct {
		Zones []Zone `wire:"availabilityZoneInfo"`
	}
)

var zones = []string{"a", "b", "c"}

// ensure gives an account its default VPC in a region, the first time that the
// region is looked at.
func (a *API) ensure(scope arn.Scope) error {
	have := false
	a.store.View(func(tx *store.Tx) {
		for range a.vpcs.Scan(tx, scope.Key("")) {
			have = true
			return
		}
	})
	if have {
		return nil
	}
	return a.store.Update(func(tx *store.Tx) error {
		for range a.vpcs.Scan(tx, scope.Key("")) {
			return nil
		}
		v := vpc{"vpc-" + id.Hex(17), "172.31.0.0/16", true}
		a.vpcs.Put(tx, scope.Key(v.ID), v)
		for i, z := range zones {
			s := subnet{"subnet-" + id.Hex(17), v.ID, fmt.Sprintf("172.31.%d.0/20", 16*i), scope.Region + z, true}
			a.subnets.Put(tx, scope.Key(s.ID), s)
		}
		g := securityGroup{"sg-" + id.Hex(17), v.ID, "default", "default VPC security group"}
		a.groups.Put(tx, scope.Key(g.ID), g)
		return nil
	})
}

// fits reports whether a thing with these properties passes the filters.
func fits(filters []Filter, properties map[string]string) (bool, error) {
	for _, f := range filters {
		have, ok := properties[f.Name]
		if !ok {
			return false, fail("InvalidParameterValue", "The filter '%s' is invalid or not performed by Serin yet", f.Name)
		}
		if !slices.Contains(f.Values, have) {
			return false, nil
		}
	}
	return true, nil
}

// DescribeVpcs lists VPCs.
func (a *API) DescribeVpcs(ctx context.Context, in *DescribeVpcsInput) (*DescribeVpcsOutput, error) {
	scope := wire.From(ctx).Scope
	if err := a.ensure(scope); err != nil {
		return nil, err
	}
	out := &DescribeVpcsOutput{}
	var err error
	a.store.View(func(tx *store.Tx) {
		for _, v := range a.vpcs.Scan(tx, scope.Key("")) {
			var ok bool
			ok, err = fits(in.Filters, map[string]string{"vpc-id": v.ID, "cidr": v.CIDR, "cidr-block": v.CIDR, "isDefault": fmt.Sprint(v.Default), "is-default": fmt.Sprint(v.Default), "state": "available"})
			if err != nil {
				return
			}
			if ok && (in.VpcIDs == nil || slices.Contains(in.VpcIDs, v.ID)) {
				out.Vpcs = append(out.Vpcs, vpcView(scope, v))
			}
		}
	})
	if err == nil && len(out.Vpcs) < len(in.VpcIDs) && in.Filters == nil {
		err = fail("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", strings.Join(in.VpcIDs, ", "))
	}
	return out, err
}

func vpcView(scope arn.Scope, v vpc) Vpc {
	return Vpc{v.ID, "available", v.CIDR, v.Default, scope.Account, "default"}
}

// CreateVpc makes a VPC with its default security group.
func (a *API) CreateVpc(ctx context.Context, in *CreateVpcInput) (*CreateVpcOutput, error) {
	scope := wire.From(ctx).Scope
	p, err := netip.ParsePrefix(in.CidrBlock)
	if err != nil || p.Masked() != p || p.Bits() < 16 || p.Bits() > 28 {
		return nil, fail("InvalidVpc.Range", "The CIDR '%s' is invalid.", in.CidrBlock)
	}
	if err := a.ensure(scope); err != nil {
		return nil, err
	}
	v := vpc{ID: "vpc-" + id.Hex(17), CIDR: in.CidrBlock}
	err = a.store.Update(func(tx *store.Tx) error {
		a.vpcs.Put(tx, scope.Key(v.ID), v)
		g := securityGroup{"sg-" + id.Hex(17), v.ID, "default", "default VPC security group"}
		a.groups.Put(tx, scope.Key(g.ID), g)
		return nil
	})
	return &CreateVpcOutput{vpcView(scope, v)}, err
}

// DeleteVpc removes a VPC that holds no subnets or groups of its own.
func (a *API) DeleteVpc(ctx context.Context, in *DeleteVpcInput) (*Done, error) {
	scope := wire.From(ctx).Scope
	return &Done{true}, a.store.Update(func(tx *store.Tx) error {
		if _, ok := a.vpcs.Get(tx, scope.Key(in.VpcID)); !ok {
			return fail("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", in.VpcID)
		}
		for _, s := range a.subnets.Scan(tx, scope.Key("")) {
			if s.VPC == in.VpcID {
				return fail("DependencyViolation", "The vpc '%s' has dependencies and cannot be deleted.", in.VpcID)
			}
		}
		var own []string
		for key, g := range a.groups.Scan(tx, scope.Key("")) {
			if g.VPC != in.VpcID {
				continue
			}
			if g.Name != "default" {
				return fail("DependencyViolation", "The vpc '%s' has dependencies and cannot be deleted.", in.VpcID)
			}
			own = append(own, key)
		}
		for _, key := range own {
			a.groups.Delete(tx, key)
		}
		a.vpcs.Delete(tx, scope.Key(in.VpcID))
		return nil
	})
}

// DescribeSubnets lists subnets.
func (a *API) DescribeSubnets(ctx context.Context, in *DescribeSubnetsInput) (*DescribeSubnetsOutput, error) {
	scope := wire.From(ctx).Scope
	if err := a.ensure(scope); err != nil {
		return nil, err
	}
	out := &DescribeSubnetsOutput{}
	var err error
	a.store.View(func(tx *store.Tx) {
		for _, s := range a.subnets.Scan(tx, scope.Key("")) {
			var ok bool
			ok, err = fits(in.Filters, map[string]string{"vpc-id": s.VPC, "subnet-id": s.ID, "cidr-block": s.CIDR, "availability-zone": s.Zone, "default-for-az": fmt.Sprint(s.Default), "state": "available"})
			if err != nil {
				return
			}
			if ok && (in.SubnetIDs == nil || slices.Contains(in.SubnetIDs, s.ID)) {
				out.Subnets = append(out.Subnets, subnetView(scope, s))
			}
		}
	})
	if err == nil && len(out.Subnets) < len(in.SubnetIDs) && in.Filters == nil {
		err = fail("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", strings.Join(in.SubnetIDs, ", "))
	}
	return out, err
}

func subnetView(scope arn.Scope, s subnet) Subnet {
	return Subnet{s.ID, scope.For("ec2", "subnet/"+s.ID).String(), "available", s.VPC, s.CIDR, s.Zone, s.Default, scope.Account}
}

// CreateSubnet makes a subnet inside its VPC's range.
func (a *API) CreateSubnet(ctx context.Context, in *CreateSubnetInput) (*CreateSubnetOutput, error) {
	scope := wire.From(ctx).Scope
	zone := in.AvailabilityZone
	if zone == "" {
		zone = scope.Region + zones[0]
	}
	if z, ok := strings.CutPrefix(zone, scope.Region); !ok || !slices.Contains(zones, z) {
		return nil, fail("InvalidParameterValue", "Value (%s) for parameter availabilityZone is invalid.", zone)
	}
	p, err := netip.ParsePrefix(in.CidrBlock)
	if err != nil || p.Masked() != p {
		return nil, fail("InvalidSubnet.Range", "The CIDR '%s' is invalid.", in.CidrBlock)
	}
	s := subnet{ID: "subnet-" + id.Hex(17), VPC: in.VpcID, CIDR: in.CidrBlock, Zone: zone}
	err = a.store.Update(func(tx *store.Tx) error {
		v, ok := a.vpcs.Get(tx, scope.Key(in.VpcID))
		if !ok {
			return fail("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", in.VpcID)
		}
		if whole := netip.MustParsePrefix(v.CIDR); !whole.Contains(p.Addr()) || p.Bits() < whole.Bits() {
			return fail("InvalidSubnet.Range", "The CIDR '%s' is invalid.", in.CidrBlock)
		}
		for _, other := range a.subnets.Scan(tx, scope.Key("")) {
			if other.VPC == in.VpcID && netip.MustParsePrefix(other.CIDR).Overlaps(p) {
				return fail("InvalidSubnet.Conflict", "The CIDR '%s' conflicts with another subnet", in.CidrBlock)
			}
		}
		a.subnets.Put(tx, scope.Key(s.ID), s)
		return nil
	})
	return &CreateSubnetOutput{subnetView(scope, s)}, err
}

// DeleteSubnet removes a subnet.
func (a *API) DeleteSubnet(ctx context.Context, in *DeleteSubnetInput) (*Done, error) {
	scope := wire.From(ctx).Scope
	return &Done{true}, a.store.Update(func(tx *store.Tx) error {
		if _, ok := a.subnets.Get(tx, scope.Key(in.SubnetID)); !ok {
			return fail("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", in.SubnetID)
		}
		for _, m := range a.machines.Scan(tx, scope.Key("")) {
			if m.Subnet == in.SubnetID && m.Ended.IsZero() {
				return fail("DependencyViolation", "The subnet '%s' has dependencies and cannot be deleted.", in.SubnetID)
			}
		}
		a.subnets.Delete(tx, scope.Key(in.SubnetID))
		return nil
	})
}

// DescribeSecurityGroups lists security groups.
func (a *API) DescribeSecurityGroups(ctx context.Context, in *DescribeSecurityGroupsInput) (*DescribeSecurityGroupsOutput, error) {
	scope := wire.From(ctx).Scope
	if err := a.ensure(scope); err != nil {
		return nil, err
	}
	out := &DescribeSecurityGroupsOutput{}
	var err error
	a.store.View(func(tx *store.Tx) {
		for _, g := range a.groups.Scan(tx, scope.Key("")) {
			var ok bool
			ok, err = fits(in.Filters, map[string]string{"vpc-id": g.VPC, "group-id": g.ID, "group-name": g.Name, "description": g.Description})
			if err != nil {
				return
			}
			if ok && (in.GroupIDs == nil || slices.Contains(in.GroupIDs, g.ID)) && (in.GroupNames == nil || slices.Contains(in.GroupNames, g.Name)) {
				out.SecurityGroups = append(out.SecurityGroups, SecurityGroup{g.ID, g.Name, g.Description, g.VPC, scope.Account})
			}
		}
	})
	if err == nil && len(out.SecurityGroups) < len(in.GroupIDs) && in.Filters == nil {
		err = fail("InvalidGroup.NotFound", "The security group '%s' does not exist", strings.Join(in.GroupIDs, ", "))
	}
	return out, err
}

// CreateSecurityGroup makes a group in a VPC, the default one if none is named.
func (a *API) CreateSecurityGroup(ctx context.Context, in *CreateSecurityGroupInput) (*CreateSecurityGroupOutput, error) {
	scope := wire.From(ctx).Scope
	if in.GroupName == "" || in.Description == "" {
		return nil, fail("MissingParameter", "The request must contain the parameters GroupName and GroupDescription")
	}
	if err := a.ensure(scope); err != nil {
		return nil, err
	}
	g := securityGroup{"sg-" + id.Hex(17), in.VpcID, in.GroupName, in.Description}
	err := a.store.Update(func(tx *store.Tx) error {
		for _, v := range a.vpcs.Scan(tx, scope.Key("")) {
			if g.VPC == "" && v.Default {
				g.VPC = v.ID
			}
		}
		if _, ok := a.vpcs.Get(tx, scope.Key(g.VPC)); !ok {
			return fail("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", g.VPC)
		}
		for _, other := range a.groups.Scan(tx, scope.Key("")) {
			if other.VPC == g.VPC && other.Name == g.Name {
				return fail("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", g.Name, g.VPC)
			}
		}
		a.groups.Put(tx, scope.Key(g.ID), g)
		return nil
	})
	return &CreateSecurityGroupOutput{true, g.ID}, err
}

// DeleteSecurityGroup removes a group that is not a VPC's default one.
func (a *API) DeleteSecurityGroup(ctx context.Context, in *DeleteSecurityGroupInput) (*Done, error) {
	scope := wire.From(ctx).Scope
	return &Done{true}, a.store.Update(func(tx *store.Tx) error {
		g, ok := a.groups.Get(tx, scope.Key(in.GroupID))
		if !ok {
			return fail("InvalidGroup.NotFound", "The security group '%s' does not exist", in.GroupID)
		}
		if g.Name == "default" {
			return fail("CannotDelete", "the specified group: %q name: %q cannot be deleted by a user", g.ID, g.Name)
		}
		a.groups.Delete(tx, scope.Key(in.GroupID))
		return nil
	})
}

// DescribeAvailabilityZones lists the region's three zones.
func (a *API) DescribeAvailabilityZones(ctx context.Context, _ *DescribeAvailabilityZonesInput) (*DescribeAvailabilityZonesOutput, error) {
	region := wire.From(ctx).Scope.Region
	out := &DescribeAvailabilityZonesOutput{}
	for i, z := range zones {
		out.Zones = append(out.Zones, Zone{region + z, fmt.Sprintf("%s-az%d", region, i+1), "available", region})
	}
	return out, nil
}
