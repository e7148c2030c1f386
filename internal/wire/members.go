package wire

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

func words(s string) []string { return strings.Fields(s) }

// checkMembers refuses what is not performed and values that no enum holds,
// naming the member by its path.
func (s *Service) checkMembers(o *Op, in any) error {
	v := reflect.ValueOf(in).Elem()
	return s.checkStruct(v, s.Naming.shape(v.Type()), o.Members, nil)
}

func (s *Service) checkStruct(v reflect.Value, sh *shape, m Members, at *path) error {
	table := m.table()
	for i := range sh.fields {
		f := &sh.fields[i]
		fv := v.Field(f.index)
		if isUnset(fv) {
			continue
		}
		if err := s.checkMember(fv, f, table, at.member(f.name)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) checkMember(v reflect.Value, f *field, table map[string]disposition, at *path) error {
	switch table[f.name] {
	case refused:
		return s.Invalid(fmt.Sprintf("Serin does not perform %s yet; remove it from the request. What is performed is listed in docs/support.md.", at))
	case ignored:
		return nil
	}
	return s.checkValue(v, f.shape, at)
}

func (s *Service) checkValue(v reflect.Value, sh *shape, at *path) error {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch sh.kind {
	case kindString:
		if value := v.String(); value != "" && sh.enum != nil && !slices.Contains(sh.enum, value) && !(slices.Contains(s.AnyCase, sh.name) && slices.Contains(sh.enum, strings.ToUpper(value))) {
			if own := s.Words[sh.name]; own != "" {
				return s.Invalid(own)
			}
			return s.Invalid(fmt.Sprintf("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must satisfy enum value set: [%s]",
				value, at, strings.Join(sh.enum, ", ")))
		}
	case kindStruct:
		return s.checkStruct(v, sh, s.Types[sh.name], at)
	case kindUnion:
		if f, value := sh.chosen(v); f != nil {
			return s.checkMember(value, f, s.Types[sh.name].table(), at.member(f.name))
		}
	case kindList:
		for i := range v.Len() {
			if err := s.checkValue(v.Index(i), sh.elem, at.item(i)); err != nil {
				return err
			}
		}
	case kindMap:
		for _, key := range sortedKeys(v) {
			if err := s.checkValue(v.MapIndex(key), sh.elem, at.member(key.String())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Unlisted returns the members, as Type.member, that no list of the service
// speaks of, and the listed ones that do not exist. Both must be empty: so an
// update of the SDK that adds a member is red until somebody decides.
func (s *Service) Unlisted() (missing, unknown []string) {
	seen := map[reflect.Type]bool{}
	for _, o := range s.ops {
		s.auditStruct(s.Naming.shape(o.in), o.Members, seen, &missing, &unknown)
	}
	for name := range s.Types {
		if !slices.ContainsFunc(slices.Collect(mapsKeys(seen)), func(t reflect.Type) bool { return t.Name() == name }) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(missing)
	slices.Sort(unknown)
	return missing, unknown
}

func mapsKeys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (s *Service) auditStruct(sh *shape, m Members, seen map[reflect.Type]bool, missing, unknown *[]string) {
	if seen[sh.typ] {
		return
	}
	seen[sh.typ] = true
	table := m.table()
	for i := range sh.fields {
		f := &sh.fields[i]
		switch table[f.name] {
		case unlisted:
			*missing = append(*missing, sh.name+"."+f.name)
		case performed, recorded:
			inner := f.shape
			for inner.kind == kindList || inner.kind == kindMap {
				inner = inner.elem
			}
			if inner.kind == kindStruct || inner.kind == kindUnion {
				s.auditStruct(inner, s.Types[inner.name], seen, missing, unknown)
			}
		}
	}
	for name := range table {
		if sh.byName[name] == nil {
			*unknown = append(*unknown, sh.name+"."+name)
		}
	}
}

// Support is a row of the support table: one member of one structure.
type Support struct{ Structure, Member, What string }

// Supported lists every member of every input and nested structure, sorted.
func (s *Service) Supported() []Support {
	var rows []Support
	add := func(structure string, m Members) {
		for d, names := range map[string]string{"performed": m.Performed, "recorded": m.Recorded, "refused": m.Refused, "ignored": m.Ignored} {
			for _, name := range words(names) {
				rows = append(rows, Support{structure, name, d})
			}
		}
	}
	for _, o := range s.ops {
		add(o.Name, o.Members)
	}
	for name, m := range s.Types {
		add(name, m)
	}
	slices.SortFunc(rows, func(a, b Support) int {
		return strings.Compare(a.Structure+"\x00"+a.Member, b.Structure+"\x00"+b.Member)
	})
	return rows
}
