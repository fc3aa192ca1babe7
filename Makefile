# SPDX-License-Identifier: MIT
# pgreen.  `make help` lists the targets.
#
# Every object is compiled once; the two variants of the runtime's lock differ in one object each, so the
# library and the unit tests are linked with either.

VERSION = 0.1.0

CC      = gcc
CXX     = g++
CFLAGS  = -O2 -g
LDFLAGS =
PREFIX  = /usr/local
DESTDIR =
B       = build
V       = 0
T       = 600
LOCK    = futex
ARCH   := $(shell uname -m)

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL = all

ifeq ($(filter $(LOCK),futex sema),)
$(error LOCK is futex or sema, not '$(LOCK)')
endif
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' '$(1)' '$(2:$(B)/%=%)')

HOUSE_CFLAGS = -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Wshadow -Wundef -Wvla -Wmissing-prototypes \
	-fvisibility=hidden -fno-omit-frame-pointer -ftls-model=initial-exec -fPIC -I. -Iarch/$(ARCH)
# A row of calls.def without a definition does not link.
HOUSE_LDFLAGS = -shared -static-libgcc -Wl,--as-needed -Wl,-z,now,-z,relro,-z,defs,-z,nodelete \
	-Wl,--no-undefined-version -Wl,-soname,libpgreen.so -Wl,--build-id

# --- what there is ---------------------------------------------------------------------------------

obj = $(patsubst %,$(B)/obj/%.o,$(basename $(1)))

LOCKS     = futex sema
CORE_SRC := $(filter-out $(LOCKS:%=core/lock_%.c),$(wildcard core/*.c))
ARCH_SRC := $(wildcard arch/$(ARCH)/*.c arch/$(ARCH)/*.S)
LIB_SRC  := $(CORE_SRC) $(ARCH_SRC) $(wildcard shim/*.c shim/*.S) preload/real.c preload/start.c
CMD_SRC  := preload/launcher.c preload/program.c
OBJS     := $(call obj,$(LIB_SRC) $(CMD_SRC) $(LOCKS:%=core/lock_%.c))

LIB  = $(B)/libpgreen.so
CMD  = $(B)/pgreen
# Tests ask for the sema variant by this place; there it is also what LOCK=sema B=$(B)/sema makes.
SEMA = $(B)/sema/libpgreen.so

UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNIT      = $(foreach l,$(LOCKS),$(UNIT_SRC:tests/unit/%.c=$(B)/unit-$(l)/%))
UNIT_OBJ := $(call obj,$(UNIT_SRC) tests/unit/support.c)
UNIT_MOD  = $(B)/unit-module-initial-exec.so $(B)/unit-module-global-dynamic.so
PROG_DIRS = tests/compat/prog tests/stress tests/bench
PROG_SRC := $(wildcard $(PROG_DIRS:%=%/*.c) $(PROG_DIRS:%=%/*.cpp))
MODULES   = $(patsubst %,$(B)/tests/module-%.so,initial-exec global-dynamic init cxx)
PROGS     = $(patsubst %,$(B)/tests/%,$(notdir $(basename $(PROG_SRC)))) $(MODULES)

.PHONY: all lib unit progs
all: $(LIB) $(CMD) $(B)/includes.ok $(B)/calls.ok
lib: $(LIB)
unit: $(UNIT)
progs: $(PROGS)

# --- packages --------------------------------------------------------------------------------------

# A goal that needs packages gets them before anything is compiled.
GOALS  := $(filter check unit progs demo bench stress compat model conformance,$(MAKECMDGOALS))
SETUPS := $(sort $(patsubst %,setup-%,$(filter demo bench conformance compat,$(GOALS)) \
	$(if $(filter-out demo bench conformance compat,$(GOALS)),check)))

.PHONY: $(SETUPS)
$(SETUPS): setup-%:
	$(Q)scripts/setup $*

# --- building --------------------------------------------------------------------------------------

# A stamp that changes when the text does: what depends on it is made again.
define stamp
$(B)/$(1).stamp: FORCE
	$$(Q)mkdir -p $$(@D); text='$$($(1)_text)'; \
		echo "$$$$text" | cmp -s - $$@ || echo "$$$$text" >$$@
endef
.PHONY: FORCE
FORCE:
compile_text = $(CC) $(CXX) $(CFLAGS) $(HOUSE_CFLAGS)
link_text    = $(CC) $(LDFLAGS) $(HOUSE_LDFLAGS) $(LOCK) $(sort $(LIB_SRC))
prefix_text  = $(PREFIX) $(VERSION)
$(eval $(call stamp,compile))
$(eval $(call stamp,link))
$(eval $(call stamp,prefix))

LAUNCHER = $(call obj,preload/launcher.c)
$(LAUNCHER): EXTRA = -DPG_VERSION='"$(VERSION)"' -DPG_LIBDIR='"$(PREFIX)/lib/pgreen"'
$(LAUNCHER): $(B)/prefix.stamp

$(B)/obj/%.o: %.c $(B)/compile.stamp | $(SETUPS)
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HOUSE_CFLAGS) $(EXTRA) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/obj/%.o: %.S $(B)/compile.stamp | $(SETUPS)
	$(call say,AS,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HOUSE_CFLAGS) $(EXTRA) $(CFLAGS) -MMD -MP -c -o $@ $<

# An anonymous version node: a named one would switch interposition off without a word.  vfork has no row, as
# it is written in assembly.
$(B)/exports.map: $(wildcard shim/*.def) scripts/check-calls $(B)/compile.stamp | $(SETUPS)
	$(call say,GEN,$@)
	$(Q)CC='$(CC)' scripts/check-calls --names >$@.names
	$(Q){ echo '{ global:'; sort -u $@.names | sed 's/.*/	&;/'; \
		echo '	vfork; __vfork;'; echo 'local: *; };'; } >$@

$(LIB):  VARIANT = $(LOCK)
$(SEMA): VARIANT = sema
$(LIB) $(SEMA): $(call obj,$(LIB_SRC) $(LOCKS:%=core/lock_%.c)) $(B)/exports.map $(B)/link.stamp
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(HOUSE_LDFLAGS) -Wl,--version-script=$(B)/exports.map $(LDFLAGS) -o $@ \
		$(call obj,$(LIB_SRC) core/lock_$(VARIANT).c)

$(CMD): $(call obj,$(CMD_SRC)) $(B)/link.stamp
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -pie -o $@ $(call obj,$(CMD_SRC))

# --- checks of the build ---------------------------------------------------------------------------

$(B)/includes.ok: $(wildcard arch/*/*.[chS] core/*.[ch] shim/* preload/*.[ch]) scripts/check-includes
	$(call say,CHECK,includes)
	$(Q)mkdir -p $(@D)
	$(Q)scripts/check-includes && touch $@

$(B)/calls.ok: $(call obj,$(CORE_SRC)) $(wildcard shim/*.def) shim/calls.pass shim/calls.rest scripts/check-calls
	$(call say,CHECK,calls)
	$(Q)CC='$(CC)' scripts/check-calls $(call obj,$(CORE_SRC)) && touch $@

.PHONY: check-needed
# Nothing but libc, and no unwinder of its own out of libgcc: exceptions belong to the program's.
check-needed: $(LIB) $(SEMA)
	$(Q)for lib in $^; do \
		needed=$$(readelf -d $$lib | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | tr '\n' ' '); \
		[ "$$needed" = 'libc.so.6 ' ] || { echo "$$lib needs $${needed:-nothing}" >&2; exit 1; }; \
		! nm $$lib | grep ' [tT] _Unwind_' >&2 || { echo "$$lib has an unwinder" >&2; exit 1; }; \
	done

# --- programs of the tests -------------------------------------------------------------------------

# An archive, so that a test gets what it uses and may bring its own of anything else.
CORE_OBJ = $(call obj,$(CORE_SRC) $(ARCH_SRC))
$(LOCKS:%=$(B)/core-%.a): $(B)/core-%.a: $(CORE_OBJ) $(B)/obj/core/lock_%.o $(B)/link.stamp
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $(filter %.o,$^)

define unit_rule
$(B)/unit-$(1)/%: $(B)/obj/tests/unit/%.o $(B)/obj/tests/unit/support.o $(B)/core-$(1).a | $(UNIT_MOD)
	$$(call say,LINK,$$@)
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(CC) $$(CFLAGS) $$(LDFLAGS) -pthread -o $$@ $$^ -lcmocka
endef
$(foreach l,$(LOCKS),$(eval $(call unit_rule,$(l))))

# Opened by test_tls: the same module with each model of TLS that a shared object may use.
$(UNIT_MOD): $(B)/unit-module-%.so: tests/unit/module.c $(B)/compile.stamp | $(SETUPS)
	$(call say,CC,$@)
	$(Q)$(CC) -O2 -g -fPIC -shared -ftls-model=$* -o $@ $<

$(B)/tests/t_openmp $(B)/tests/t_unannounced: PROG_FLAGS = -fopenmp
define prog_rule
$(B)/tests/%: $(1)/%.c $(B)/compile.stamp | $(SETUPS)
	$$(call say,CC,$$<)
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -pthread $$(PROG_FLAGS) -MMD -MP -MF $$@.d -o $$@ $$< $$(PROG_LDFLAGS) -lm
$(B)/tests/%: $(1)/%.cpp $(B)/compile.stamp | $(SETUPS)
	$$(call say,CXX,$$<)
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(CXX) -std=c++20 -O2 -g -Wall -pthread -MMD -MP -MF $$@.d -o $$@ $$<
endef
$(foreach d,$(PROG_DIRS),$(eval $(call prog_rule,$(d))))

# Opened by t_dlopen, whose symbols some of them use.
MOD_DIR = tests/compat/prog/modules
$(B)/tests/module-initial-exec.so $(B)/tests/module-global-dynamic.so: $(B)/tests/module-%.so: $(MOD_DIR)/tls.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -O2 -g -Wall -fPIC -shared -ftls-model=$* -o $@ $<
$(B)/tests/module-init.so: $(B)/tests/module-%.so: $(MOD_DIR)/%.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -O2 -g -Wall -fPIC -shared -ftls-model=initial-exec -o $@ $<
$(B)/tests/module-cxx.so: $(B)/tests/module-%.so: $(MOD_DIR)/%.cpp
	$(call say,CXX,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CXX) -std=c++20 -O2 -g -Wall -fPIC -shared -o $@ $<
$(B)/tests/t_dlopen: PROG_LDFLAGS = -rdynamic

# --- running things --------------------------------------------------------------------------------

.PHONY: check demo bench stress model conformance compat
check: all unit progs check-needed $(SETUPS)
	$(Q)tests/run check --build $(B)
stress: all $(SEMA) progs $(SETUPS)
	$(Q)tests/run stress --build $(B) --seconds $(T) $(SEED:%=--seed %)
compat: all progs $(SETUPS)
	$(Q)tests/compat/run $(P) --build $(B) $(if $(T),--seconds $(T)) $(if $(WRITE),--write)
conformance: all $(SEMA) $(SETUPS)
	$(Q)tests/run conformance --build $(B)
model: $(SETUPS)
	$(Q)tests/model/run all
demo: all progs $(SETUPS)
	$(Q)B=$(B) tests/bench/demo
bench: all progs $(SETUPS)
	$(Q)B=$(B) tests/bench/run

# --- installing ------------------------------------------------------------------------------------

INSTALLED = bin/pgreen lib/pgreen/libpgreen.so share/man/man1/pgreen.1
.PHONY: install uninstall clean help
install: $(LIB) $(CMD)
	$(Q)install -d $(addprefix '$(DESTDIR)$(PREFIX)'/,$(dir $(INSTALLED)))
	$(Q)install -m 755 $(CMD) '$(DESTDIR)$(PREFIX)'/bin/pgreen
	$(Q)install -m 644 $(LIB) '$(DESTDIR)$(PREFIX)'/lib/pgreen/libpgreen.so
	$(Q)install -m 644 preload/pgreen.1 '$(DESTDIR)$(PREFIX)'/share/man/man1/pgreen.1

uninstall:
	$(Q)rm -f $(addprefix '$(DESTDIR)$(PREFIX)'/,$(INSTALLED))
	$(Q)rmdir '$(DESTDIR)$(PREFIX)'/lib/pgreen 2>/dev/null || :

clean:
	$(Q)rm -rf $(B)

help:
	@echo 'make              the library and the command, in $(B)/'
	@echo 'make demo         see what it does (installs the Debian packages it lacks)'
	@echo 'make check        all tests (likewise)'
	@echo 'make stress       random load under random knobs, for T=$(T) seconds; SEED= repeats'
	@echo 'make compat       many real programs, with their speed; P="mariadb java": these, T=60: seconds of load, WRITE=1: COMPAT.md'
	@echo 'make conformance  tests of glibc; model: the Promela models'
	@echo 'make bench        the figures, natively and under pgreen'
	@echo 'make unit progs   build the test programs only'
	@echo 'make install      PREFIX=$(PREFIX) DESTDIR=; uninstall: the reverse'
	@echo 'make clean'
	@echo 'Variables: CC CXX CFLAGS LDFLAGS PREFIX DESTDIR B LOCK=futex|sema V=1'

# Named here, test objects are no intermediate files.
$(UNIT_OBJ):
-include $(OBJS:.o=.d) $(UNIT_OBJ:.o=.d) $(PROGS:%=%.d)
