/* SPDX-License-Identifier: MIT */
/*
 * The context switch of x86-64, the entry of a new stack, clone, and two small calls that need assembly.
 *
 * A saved context is what lies on its stack, lowest address first:
 *
 *	sp ->	mxcsr (4) | x87 control word (2) | pad (2)
 *		r15  r14  r13  r12  rbx  rbp
 *		return address
 *
 * The red zone is not touched: a switch is a call.  mxcsr and the x87 word are loaded only when they differ from the
 * running ones, since loading them costs more than all the pops together.
 */
	.text

	.globl	pg_arch_switch_fs
	.hidden	pg_arch_switch_fs
	.type	pg_arch_switch_fs, @function
	.p2align 5
pg_arch_switch_fs:
	.cfi_startproc
	endbr64
	pushq	%rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbp, 0
	pushq	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbx, 0
	pushq	%r12
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r12, 0
	pushq	%r13
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r13, 0
	pushq	%r14
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r14, 0
	pushq	%r15
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r15, 0
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	stmxcsr	(%rsp)
	fnstcw	4(%rsp)
	movl	(%rsp), %eax
	movzwl	4(%rsp), %ecx
	movq	%rsp, (%rdi)
	movq	%rsi, %rsp
	wrfsbase %rdx
.Lrestore:
	cmpl	(%rsp), %eax
	jne	3f
1:	cmpw	4(%rsp), %cx
	jne	4f
2:	addq	$8, %rsp
	.cfi_adjust_cfa_offset -8
	popq	%r15
	.cfi_adjust_cfa_offset -8
	.cfi_restore r15
	popq	%r14
	.cfi_adjust_cfa_offset -8
	.cfi_restore r14
	popq	%r13
	.cfi_adjust_cfa_offset -8
	.cfi_restore r13
	popq	%r12
	.cfi_adjust_cfa_offset -8
	.cfi_restore r12
	popq	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore rbx
	popq	%rbp
	.cfi_adjust_cfa_offset -8
	.cfi_restore rbp
	ret
	.cfi_adjust_cfa_offset 56
	.cfi_rel_offset rbp, 48
	.cfi_rel_offset rbx, 40
	.cfi_rel_offset r12, 32
	.cfi_rel_offset r13, 24
	.cfi_rel_offset r14, 16
	.cfi_rel_offset r15, 8
3:	ldmxcsr	(%rsp)
	jmp	1b
4:	fldcw	4(%rsp)
	jmp	2b
	.cfi_endproc
	.size	pg_arch_switch_fs, .-pg_arch_switch_fs

/* The same where user code may not write the fs base (old kernels, valgrind): arch_prctl(ARCH_SET_FS, tp). */
	.globl	pg_arch_switch_prctl
	.hidden	pg_arch_switch_prctl
	.type	pg_arch_switch_prctl, @function
	.p2align 5
pg_arch_switch_prctl:
	.cfi_startproc
	endbr64
	pushq	%rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbp, 0
	pushq	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbx, 0
	pushq	%r12
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r12, 0
	pushq	%r13
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r13, 0
	pushq	%r14
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r14, 0
	pushq	%r15
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r15, 0
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	stmxcsr	(%rsp)
	fnstcw	4(%rsp)
	movl	(%rsp), %r8d
	movzwl	4(%rsp), %r9d
	movq	%rsp, (%rdi)
	movq	%rsi, %rsp
	movq	%rdx, %rsi
	movl	$0x1002, %edi
	movl	$158, %eax
	syscall
	movl	%r8d, %eax
	movl	%r9d, %ecx
	jmp	.Lrestore
	.cfi_endproc
	.size	pg_arch_switch_prctl, .-pg_arch_switch_prctl

/*
 * The first instruction of a new stack.  pg_arch_frame left fn in rbx and arg in r12.  The undefined return address
 * tells every unwinder that the stack ends here.
 */
	.globl	pg_arch_entry
	.hidden	pg_arch_entry
	.type	pg_arch_entry, @function
pg_arch_entry:
	.cfi_startproc
	.cfi_undefined rip
	xorl	%ebp, %ebp
	movq	%r12, %rdi
	call	*%rbx
	ud2
	.cfi_endproc
	.size	pg_arch_entry, .-pg_arch_entry

/* long pg_arch_clone(fn rdi, stack_top rsi, flags rdx, arg rcx, tidptr r8, tp r9) */
	.globl	pg_arch_clone
	.hidden	pg_arch_clone
	.type	pg_arch_clone, @function
pg_arch_clone:
	.cfi_startproc
	endbr64
	andq	$-16, %rsi
	subq	$16, %rsi
	movq	%rdi, (%rsi)
	movq	%rcx, 8(%rsi)
	movq	%rdx, %rdi
	movq	%r8, %rdx
	movq	%r8, %r10
	movq	%r9, %r8
	movl	$56, %eax
	syscall
	testq	%rax, %rax
	jz	1f
	ret
1:	.cfi_undefined rip
	xorl	%ebp, %ebp
	popq	%rax
	popq	%rdi
	call	*%rax
	ud2
	.cfi_endproc
	.size	pg_arch_clone, .-pg_arch_clone

/*
 * void pg_arch_guarded(fn rdi, arg rsi): a frame with a personality of ours and nothing to land on: the
 * personality itself does the work when an exception passes (pg_personality in arch.c).
 */
	.globl	pg_arch_guarded
	.hidden	pg_arch_guarded
	.type	pg_arch_guarded, @function
pg_arch_guarded:
	.cfi_startproc
	.cfi_personality 0x1b, pg_personality
	endbr64
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	movq	%rdi, %rax
	movq	%rsi, %rdi
	call	*%rax
	addq	$8, %rsp
	.cfi_adjust_cfa_offset -8
	ret
	.cfi_endproc
	.size	pg_arch_guarded, .-pg_arch_guarded

/* Jumped to, not called: the frame that set the jmp_buf is below, and nobody goes back there. */
	.globl	pg_arch_bottom
	.hidden	pg_arch_bottom
	.type	pg_arch_bottom, @function
pg_arch_bottom:
	.cfi_startproc
	.cfi_undefined rip
	endbr64
	xorl	%ebp, %ebp
	andq	$-16, %rsp
	call	pg_bottom
	ud2
	.cfi_endproc
	.size	pg_arch_bottom, .-pg_arch_bottom

/* void pg_arch_call_on(stack_top rdi, fn rsi, arg rdx) */
	.globl	pg_arch_call_on
	.hidden	pg_arch_call_on
	.type	pg_arch_call_on, @function
pg_arch_call_on:
	.cfi_startproc
	endbr64
	pushq	%rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbp, 0
	movq	%rsp, %rbp
	.cfi_def_cfa_register rbp
	andq	$-16, %rdi
	movq	%rdi, %rsp
	movq	%rdx, %rdi
	call	*%rsi
	movq	%rbp, %rsp
	popq	%rbp
	.cfi_def_cfa rsp, 8
	.cfi_restore rbp
	ret
	.cfi_endproc
	.size	pg_arch_call_on, .-pg_arch_call_on

/*
 * pid_t vfork(void).  The child runs on the parent's stack and returns through this frame, so the return address is
 * kept in a register that the kernel preserves.  pg_vfork_before and pg_vfork_after (shim/process) put the
 * calling G in native mode while memory is shared; in the child nothing of pgreen runs.
 */
	.globl	vfork
	.type	vfork, @function
	.globl	__vfork
	.set	__vfork, vfork
vfork:
	.cfi_startproc
	endbr64
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	call	pg_vfork_before
	addq	$8, %rsp
	.cfi_adjust_cfa_offset -8
	popq	%rdi
	.cfi_adjust_cfa_offset -8
	.cfi_register rip, rdi
	movl	$58, %eax
	syscall
	pushq	%rdi
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rip, 0
	testq	%rax, %rax
	jz	1f
	movq	%rax, %rdi
	jmp	pg_vfork_after
1:	ret
	.cfi_endproc
	.size	vfork, .-vfork

/* Where handlers return to.  No CFI: unwinders know these bytes as the end of a signal handler. */
	.globl	pg_arch_restorer
	.hidden	pg_arch_restorer
	.type	pg_arch_restorer, @function
	.p2align 4
	nop
pg_arch_restorer:
	movq	$15, %rax
	syscall
	.size	pg_arch_restorer, .-pg_arch_restorer

	.section .note.GNU-stack,"",@progbits
